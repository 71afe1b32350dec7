"""The node's log: changes of state for people or programs, on standard error.

`info` tells what changed (who leads, who is up, starts and stops), never a single request: at
20,000 requests a second a line for each would be the product's main work. `node` is bound to every
line; `partition` and `term` are given where they apply (leaderships share a line: `leadership`).

Logging never raises and never waits (RULES.md rule 31; `log_sink`), with one exception: `critical`,
which is said of a process that ends now, waits a moment for its line to be written. Tracebacks are plain:
they hold no values of variables, which may be bodies and secrets, and cost little to render.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from io import StringIO
from typing import Any, TextIO

import structlog
from structlog.typing import ExcInfo, FilteringBoundLogger, Processor

from allsource.config.schema import LogSettings
from allsource.node.observe.log_sink import LogSink, SinkStream, output_to
from allsource.storage.model.printable import printable, printable_lines

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

LAST_WORD_S = 0.1
"""How long a `critical` line may take: its process must end, and it may be the only witness."""
FAREWELL_S = 0.5
"""How long a process that ends in order waits for the lines that are left."""


@contextmanager
def node_log(settings: LogSettings, node_id: str) -> Iterator[FilteringBoundLogger]:
    """The node's log for the time of the `with` block: structlog, `logging` (asyncio's and aiohttp's words)
    and everything printed to standard error go through one sink."""
    stderr = sys.stderr
    render = Renderer(_processors(settings, colors=stderr.isatty()))

    def missing(lines: int) -> str:
        event = "log lines before this one could not be written"
        return render(None, "warning", {"event": event, "lines": lines, "node": node_id})

    sink = LogSink(output_to(stderr), missing)
    structlog.configure(
        processors=[render],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[settings.level]),
        logger_factory=lambda *_: _SinkLogger(sink),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    handler = _Bridge(render, sink, node_id)
    root.addHandler(handler)
    sys.stderr = SinkStream(sink, stderr)  # as much of a stream as is used
    logger: Any = structlog.get_logger()
    bound: FilteringBoundLogger = logger.bind(node=node_id)
    try:
        yield bound
    finally:
        sys.stderr.flush()
        sys.stderr = stderr
        root.removeHandler(handler)
        sink.drain(FAREWELL_S)


def _processors(settings: LogSettings, *, colors: bool) -> list[Processor]:
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if settings.format == "json":
        plain = structlog.tracebacks.ExceptionDictTransformer(show_locals=False, use_rich=False)
        return [*shared, structlog.processors.ExceptionRenderer(plain), structlog.processors.JSONRenderer()]
    console = structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=_plain_traceback)
    return [*shared, _make_printable, console]


def _make_printable(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A peer's words are shown on somebody's terminal. (What is no string is rendered by its `repr`.)"""
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = printable(value)
    return event


def _plain_traceback(output: TextIO, exc_info: ExcInfo) -> None:
    rendered = StringIO()
    structlog.dev.plain_traceback(rendered, exc_info)
    output.write(printable_lines(rendered.getvalue()))


class Renderer:
    """A chain of processors that ends in a line, as one processor that never raises: what is logged may be
    an object whose `repr` does."""

    def __init__(self, processors: Sequence[Processor]) -> None:
        self._processors = processors

    def __call__(self, logger: Any, level: str, event: MutableMapping[str, Any]) -> str:
        words = str(event.get("event"))
        try:
            made: Any = event
            for processor in self._processors:
                made = processor(logger, level, made)
            return str(made)
        except Exception as error:
            return printable(
                f"[{level}] {words} (its details could not be rendered: {type(error).__name__})"
            )


class _SinkLogger:
    """What structlog hands rendered lines to."""

    def __init__(self, sink: LogSink) -> None:
        self._sink = sink
        self.debug = self.info = self.warning = self.warn = self.error = self.exception = sink.write
        self.msg = self.log = sink.write

    def critical(self, line: str) -> None:
        """The last word of this process."""
        self._sink.write(line)
        self._sink.drain(LAST_WORD_S)

    fatal = critical


class _Bridge(logging.Handler):
    """Brings the standard library's log records into ours."""

    def __init__(self, render: Renderer, sink: LogSink, node_id: str) -> None:
        super().__init__(logging.WARNING)
        self._render = render
        self._sink = sink
        self._node_id = node_id

    def emit(self, record: logging.LogRecord) -> None:
        try:
            event = {"event": record.getMessage(), "logger": record.name, "node": self._node_id}
        except Exception:  # arguments that do not fit their format
            event = {"event": str(record.msg), "logger": record.name, "node": self._node_id}
        if record.exc_info:
            event["exc_info"] = record.exc_info  # type: ignore[assignment]
        self._sink.write(self._render(None, record.levelname.lower(), event))
