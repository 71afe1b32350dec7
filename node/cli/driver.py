"""Whether nodes can run here at all: PostgreSQL's driver is an extra that may not be installed, and the
schema of each node needs a name that PostgreSQL takes.
"""

from __future__ import annotations

import click

from allsource.config.schema import Settings
from allsource.storage.model.errors import StorageFault
from allsource.storage.postgres.driver import driver, node_target


def require_driver(settings: Settings) -> None:
    """Raise a `ClickException` that says what to install, before anything is started or made."""
    if not settings.storage.traits.in_server:
        return
    if (wrong := schema_fault(settings)) is not None:
        raise click.ClickException(wrong)
    try:
        driver()
    except StorageFault as error:
        raise click.ClickException(error.message) from None


def schema_fault(settings: Settings) -> str | None:
    """What is wrong with the schema that a node would keep its log in, None if nothing is."""
    if settings.storage.traits.in_server:
        for node in settings.nodes:
            try:
                node_target(settings.storage.dsn, node.id)
            except StorageFault as error:
                return f"{node.id}: {error.message}"
    return None
