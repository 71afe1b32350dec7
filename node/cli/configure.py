"""`allsource config`: look at a configuration before a cluster does, and make a secret for one."""

from __future__ import annotations

import secrets
from pathlib import Path

import click

from allsource.config.describe import describe
from allsource.config.exposure import exposures
from allsource.config.load import ConfigFault, Fault, load_settings
from allsource.config.promise import promise_of
from allsource.config.schema import Settings
from allsource.node.cli.driver import require_driver, schema_fault
from allsource.node.cli.output import echo, echo_json, note
from allsource.storage.model.printable import printable_lines

_SECRET_BYTES = 32


@click.group()
def config() -> None:
    """Check configuration files, and make secrets for them."""


@config.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Faults (or none) and warnings as JSON.")
def check(file: Path, as_json: bool) -> int:
    """Report every fault of FILE at once, or print the settings in force (the secret masked)."""
    try:
        settings = _load(file)
    except ConfigFault as fault:
        if not as_json:
            raise
        echo_json(
            {
                "ok": False,
                "faults": [{"line": f.line, "key": f.key, "message": f.message} for f in fault.faults],
                "warnings": [],
            }
        )
        return 2
    warnings = _warnings(settings, file)
    if as_json:
        promise = promise_of(settings)
        less = [f"{promise.durability}: {promise.meaning}"] if promise.is_less else []
        echo_json({"ok": True, "faults": [], "warnings": [*less, *warnings]})
        return 0
    echo(printable_lines(describe(settings).rstrip()))  # its first line is the promise
    for sentence in warnings:
        note(f"allsource: warning: {sentence}")
    return 0


@config.command()
def secret() -> None:
    """Print a new secret (256 bits of chance): allsource config secret > FILE; chmod 600 FILE."""
    echo(secrets.token_urlsafe(_SECRET_BYTES))


def _load(file: Path) -> Settings:
    settings = load_settings(file)
    if (wrong := schema_fault(settings)) is not None:
        raise ConfigFault(file, [Fault(0, "storage.dsn", wrong)])
    return settings


def _warnings(settings: Settings, file: Path) -> list[str]:
    """What is allowed and yet not what most people want, or will not work here."""
    found = exposures(file)
    try:
        require_driver(settings)
    except click.ClickException as missing:  # no fault of the file, and its nodes may run elsewhere
        found.append(f"here {missing.message}")
    return found


@config.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def client_secret(file: Path) -> int:
    """Print the clients' key of FILE's cluster: the one to hand out, which makes nobody a node."""
    echo(load_settings(file).client_secret)
    return 0
