"""The PostgreSQL backend of nodes against the contract, and against what only a server can do."""

from __future__ import annotations

from random import Random

import pytest

from allsource.storage.postgres.driver import parse_target
from allsource.storage.postgres.storage import PostgresStorage
from tests.storage.contract import PARTITIONS, Backend, StorageContract


def open_postgres(url: str, **changed: object) -> PostgresStorage:
    wanted: dict = {"cluster_id": "c", "node_id": "n1", "partition_count": PARTITIONS}
    return PostgresStorage(parse_target(url, ""), **{**wanted, **changed})


def drop(storage: PostgresStorage) -> None:
    """Leave a storage as a killed process does: its connections are gone, nothing else happens."""
    storage._closed = True
    storage._session.close()


class PostgresBackend:
    def __init__(self, url: str) -> None:
        self._url = url

    def open(self) -> PostgresStorage:
        return open_postgres(self._url)

    def crash(self, storage: PostgresStorage, random: Random) -> PostgresStorage:
        drop(storage)
        return self.open()

    def reopens(self) -> bool:
        return True


class TestPostgresContract(StorageContract):
    @pytest.fixture
    def backend(self, postgres_url: str) -> Backend:
        return PostgresBackend(postgres_url)
