"""Whether nodes can run here at all: the driver of their backend is an extra that may not be installed."""

from __future__ import annotations

import click

from allsource.config.schema import Settings
from allsource.storage.errors import StorageFault
from allsource.storage.postgres.driver import driver


def require_driver(settings: Settings) -> None:
    """Raise a `ClickException` that says what to install, before anything is started or made."""
    if settings.storage.backend != "postgres":
        return
    try:
        driver()
    except StorageFault as error:
        raise click.ClickException(error.message) from None
