"""A copy of a cluster for the length of one command: on free ports, with data of its own that is removed.

On PostgreSQL the data is in schemas of its own (`drill_...`) in the server that the file names. They are
dropped together with the directory, also when the command is interrupted; `keep` spares both.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType

import yaml

from allsource.config.backends import BACKENDS
from allsource.config.load import load_settings
from allsource.node.cli.control.cluster import ClusterFault, write_config
from allsource.node.cli.driver import require_driver
from allsource.node.cli.loop import run_loop
from allsource.node.cli.output import note
from allsource.storage.model.errors import AllsourceError
from allsource.storage.postgres.driver import Target, connect, node_target, quoted, with_schema

_DSN_VARIABLE = "ALLSOURCE__STORAGE__DSN"
_BACKEND_VARIABLE = "ALLSOURCE__STORAGE__BACKEND"
_LOCK_TIMEOUT = "10s"
"""For the server to notice that a killed node is gone, whose last statement may still run."""


class Scratch:
    """A context around everything that is done with the copy: its processes must be gone before it ends."""

    def __init__(
        self, source: Path, purpose: str, *, backend: str | None = None, within: Path | None = None
    ) -> None:
        """`backend` instead of the one in `source`; `within`: where its directory goes."""
        self.directory = Path(tempfile.mkdtemp(prefix=f"allsource-{purpose}-", dir=within))
        self._kept = False
        try:
            self.config = copy_config(source, self.directory, backend)
        except BaseException:
            shutil.rmtree(self.directory)
            raise

    def __enter__(self) -> Scratch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        schemas = self._schemas()
        if self._kept:
            also = f", the events in {', '.join(target.shown for target in schemas)}" if schemas else ""
            note(f"data and logs of the cluster are kept in {self.directory}{also}")
            return
        if schemas:
            _drop(schemas)
        shutil.rmtree(self.directory)

    def keep(self) -> None:
        """Leave everything where it is, for somebody to look at, and say where."""
        self._kept = True

    def _schemas(self) -> list[Target]:
        settings = load_settings(self.config)
        if not settings.storage.traits.in_server:
            return []
        return [node_target(settings.storage.dsn, node.id) for node in settings.nodes]


def copy_config(source: Path, directory: Path, backend: str | None = None) -> Path:
    """The same cluster as in `source`, on free loopback ports and with its data in `directory`, or, on
    PostgreSQL, in schemas that nobody else has. Raises `ClusterFault` if the environment forbids it."""
    settings = load_settings(source)
    if not backend:
        require_driver(settings)
    keys = yaml.safe_load(source.read_text())
    del keys["nodes"]
    keys["secret"] = settings.secret  # its file may be named relative to somewhere else
    keys["client_secret"] = settings.client_secret
    storage = keys.get("storage") or {}
    if backend:
        if _BACKEND_VARIABLE in os.environ:
            raise ClusterFault(f"unset {_BACKEND_VARIABLE}, or leave out --backend")
        storage = {**storage, "backend": backend}
    if BACKENDS[backend or settings.storage.backend].in_server:
        if _DSN_VARIABLE in os.environ:  # it would beat the file, and send the nodes to the real schemas
            raise ClusterFault(f"unset {_DSN_VARIABLE} and name the dsn in {source}")
        schema = f"drill_{os.urandom(4).hex()}"
        storage = {**storage, "dsn": with_schema(settings.storage.dsn, schema)}
    elif backend:
        storage.pop("dsn", None)
    if storage:
        keys["storage"] = storage
    return write_config(directory, [node.id for node in settings.nodes], **keys)


def _drop(schemas: list[Target]) -> None:
    """Drop them all; what cannot be dropped is named, for the command's own result matters more."""
    try:
        run_loop(_drop_all(schemas))
    except AllsourceError as error:
        names = ", ".join(target.schema for target in schemas)
        note(f"these schemas are left behind, drop them yourself: {names} ({error.message})")


async def _drop_all(schemas: list[Target]) -> None:
    for target in schemas:
        connection = await connect(target, lock_timeout=_LOCK_TIMEOUT)
        try:
            await connection.execute(f"DROP SCHEMA IF EXISTS {quoted(target.schema)} CASCADE")
        finally:
            await connection.close()
