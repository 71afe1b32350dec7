"""The `allsource` command group, and the one place where errors become a line and an exit status.

Exit statuses: 0 success; 1 the command failed, a drill found something wrong, or the reader of our
output went away; 2 the command line or the configuration is wrong; 70 a defect of ours; 130 interrupted.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from allsource.config.load import ConfigFault
from allsource.node.cli.output import note
from allsource.storage.model.errors import AllsourceError

FAILED, USAGE, DEFECT, INTERRUPTED = 1, 2, 70, 130

TRACEBACK_VARIABLE = "ALLSOURCE_TRACEBACK"
"""Set it to see the traceback of an unexpected error (exit status 70)."""

_COMMANDS = {
    "launch": ("launch.command", "launch"),
    "node": ("node", "node"),
    "status": ("ask", "status"),
    "append": ("ask", "append"),
    "read": ("ask", "read"),
    "config": ("configure", "config"),
    "verify": ("verify", "verify"),
    "checkpoint": ("checkpoint", "checkpoint"),
    "drill": ("drill.command", "drill"),
    "bench": ("bench.command", "bench"),
}


class _LazyGroup(click.Group):
    """A group that imports a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, name = _COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(f"allsource.node.cli.{module}"), name)
        return command


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="allsource", message="allsource %(version)s")
def cli() -> None:
    """A partitioned, replicated event store: start it from one YAML file, kill any node, lose nothing."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; whatever goes wrong is one line on standard error."""
    _show_what_cannot_be_encoded()
    try:
        result: Any = cli.main(args=arguments, prog_name="allsource", standalone_mode=False)
        _flush()
        return result if isinstance(result, int) else 0
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        _silence_stdout()
        return FAILED
    except click.exceptions.NoArgsIsHelpError as help_page:
        note(help_page.ctx.get_help())
        return USAGE
    except click.ClickException as error:
        return _complain(error.format_message(), error.exit_code)
    except ConfigFault as error:
        return _complain(str(error), USAGE)
    except AllsourceError as error:
        return _complain(f"{error.message} [{error.code}]", FAILED)
    except OSError as error:
        return _complain(str(error), FAILED)
    except Exception as error:  # a defect: say so in a line, and how to see more, rather than 40 lines
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        what = " ".join(str(error).split())
        hint = f"this is a defect; {TRACEBACK_VARIABLE}=1 shows where"
        return _complain(f"internal error: {type(error).__name__}: {what} ({hint})", DEFECT)


def _show_what_cannot_be_encoded() -> None:
    """A terminal with another encoding than UTF-8 is shown escapes, not a failure."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):  # a stream of a test, or a closed one
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def _complain(message: str, status: int) -> int:
    with contextlib.suppress(OSError):  # nobody may be left to read it; the status still tells
        note(f"allsource: {message}")
    return status


def _flush() -> None:
    """Meet a broken pipe here, where it is handled (earlier ones click has met: status 1 and silence)."""
    sys.stdout.flush()


def _silence_stdout() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
