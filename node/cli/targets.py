"""Which cluster a command means, and how to talk to it.

`--config FILE` names the cluster by its file. `--node HOST:PORT` (a node's peer protocol port) names it
by a node; the clients' key then comes from `--secret-file` or the environment, unless there is a file too.
Without either, `config/three-nodes.yaml` is meant, if the current directory has it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import click

from allsource.client import Client
from allsource.config.load import load_settings
from allsource.config.schema import Settings

DEFAULT_CONFIG = Path("config/three-nodes.yaml")
SECRET_VARIABLE = "ALLSOURCE_SECRET"

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

config_option = click.option(
    "--config", type=_FILE, default=DEFAULT_CONFIG, show_default=True, help="The cluster's file."
)


@dataclass(frozen=True, slots=True)
class Target:
    """A cluster to talk to."""

    addresses: tuple[str, ...]
    secret: str
    """The clients' key."""
    cluster_id: str = ""
    """Empty: any cluster that knows the key."""
    timeout_s: float = 5.0

    def connect(self) -> Client:
        """A client of the cluster, to be entered."""
        return Client(
            self.addresses, secret=self.secret, cluster_id=self.cluster_id, timeout_s=self.timeout_s
        )


def connect(settings: Settings) -> Client:
    """A client of the cluster with these settings, to be entered."""
    return _target_of(settings).connect()


def target_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that name a cluster; it gets them as one `target`."""

    @click.option("--config", type=_FILE, help=f"The cluster's file; {DEFAULT_CONFIG} if it is there.")
    @click.option(
        "--node", "nodes", multiple=True, metavar="HOST:PORT", help="A node's peer port; repeatable."
    )
    @click.option(
        "--secret-file", type=_FILE, help=f"The clients' key, if --node is given; or ${SECRET_VARIABLE}."
    )
    @click.option(
        "--timeout", type=click.FloatRange(0.05, 600), default=5.0, show_default=True, metavar="S"
    )
    @wraps(command)
    def with_target(
        *,
        config: Path | None,
        nodes: tuple[str, ...],
        secret_file: Path | None,
        timeout: float,
        **options: Any,
    ) -> Any:
        return command(target=find_target(config, nodes, secret_file, timeout), **options)

    return with_target


def find_target(
    config: Path | None, nodes: tuple[str, ...], secret_file: Path | None, timeout_s: float
) -> Target:
    """The cluster that the options mean; a `UsageError` says what is missing."""
    if config is None and not nodes:
        if not DEFAULT_CONFIG.exists():
            raise click.UsageError(
                "which cluster? Give --config FILE, or --node HOST:PORT and the clients' key"
            )
        config = DEFAULT_CONFIG
    known = _target_of(load_settings(config)) if config is not None else None
    secret = _given_secret(secret_file) or (known.secret if known else "")
    if not secret:
        raise click.UsageError(f"--node needs the clients' key: --secret-file, or ${SECRET_VARIABLE}")
    return Target(
        nodes or (known.addresses if known else ()), secret, known.cluster_id if known else "", timeout_s
    )


def _given_secret(file: Path | None) -> str:
    return file.read_text().strip() if file is not None else os.environ.get(SECRET_VARIABLE, "")


def _target_of(settings: Settings) -> Target:
    addresses = tuple(f"{node.host}:{node.port}" for node in settings.nodes)
    return Target(addresses, settings.client_secret, settings.cluster_id)
