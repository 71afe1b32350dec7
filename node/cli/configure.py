"""`allsource config`: look at a configuration before a cluster does."""

from __future__ import annotations

from pathlib import Path

import click

from allsource.config.describe import describe
from allsource.config.load import ConfigFault, load_settings
from allsource.node.cli.driver import require_driver
from allsource.node.cli.output import echo_json, note


@click.group()
def config() -> None:
    """Check configuration files."""


@config.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Faults (or none) as JSON.")
def check(file: Path, as_json: bool) -> int:
    """Report every fault of FILE at once, or print the settings in force (the secret masked)."""
    try:
        settings = load_settings(file)
    except ConfigFault as fault:
        if not as_json:
            raise
        echo_json(
            {
                "ok": False,
                "faults": [{"line": f.line, "key": f.key, "message": f.message} for f in fault.faults],
            }
        )
        return 2
    try:
        require_driver(settings)
    except click.ClickException as missing:  # no fault of the file, and its nodes may run elsewhere
        note(f"here {missing.message}")
    if as_json:
        echo_json({"ok": True, "faults": []})
    else:
        click.echo(describe(settings).rstrip())
    return 0
