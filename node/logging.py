"""The node's log: changes of state for people or programs, on standard error.

`info` tells what changed (who leads, who is up, starts and stops), never a single request: at
20,000 requests a second a line for each would be the product's main work. `node` is bound to every
line; `partition` and `term` are given where they apply.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog
from structlog.typing import FilteringBoundLogger, Processor

from allsource.config.schema import LogSettings

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure_logging(settings: LogSettings, node_id: str) -> FilteringBoundLogger:
    """Set up structlog for this process and return its logger, with `node` bound."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if settings.format == "json":
        last: list[Processor] = [
            structlog.processors.dict_tracebacks,
            structlog.processors.JSONRenderer(),
        ]
    else:
        last = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[settings.level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    logger: Any = structlog.get_logger()
    bound: FilteringBoundLogger = logger.bind(node=node_id)
    return bound
