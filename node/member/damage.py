"""Which partitions of this node are damaged, remembered over its restarts.

A record that fails its checksum makes the whole copy of its partition suspect: the node takes no part in
that partition any more, and its peers serve it (RULES.md rule 17). A restart must not forget that, for
the damage may lie where no start looks. So it is written down when it is found. At the next start the
partition is verified in full, every record and every index; only if all of it is whole (a cable or the
memory was the cause, and is another one now) does the node take part in it again, as a replica that was
away.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

from allsource.storage.model.errors import Corrupt
from allsource.storage.model.log import PartitionState

_DAMAGED = "damaged/"

ADVICE = (
    "this node takes no part in it any more, and its peers serve it; keep the node running for the other "
    "partitions. `allsource verify`, with the node stopped, names all that is damaged; this version cannot "
    "repair it, and fetching it anew from the peers is to come"
)
"""What an operator should know; behind what was found."""


class Store(Protocol):
    """The part of `Storage` that this needs."""

    def get_meta(self, key: str) -> bytes | None: ...

    def put_meta(self, values: Mapping[str, bytes]) -> None: ...

    def load(self, partition: int) -> PartitionState: ...

    def verify(self, partition: int) -> Iterator[str]: ...


@runtime_checkable
class Suspect(Protocol):
    """A storage that knows that something in it is damaged, and not always what; `RocksStorage` is one."""

    @property
    def is_suspect(self) -> bool: ...

    def clear_suspicion(self) -> None: ...


class DamagedPartitions:
    """See the module's page. `found` holds what was found, by partition."""

    def __init__(self, store: Store, partitions: Sequence[int]) -> None:
        """`partitions`: those that this node keeps."""
        self._store = store
        self._partitions = partitions
        self.found: dict[int, str] = {}
        for partition in partitions:
            if found := remembered(store, partition):
                self.found[partition] = found

    def states(self) -> dict[int, PartitionState]:
        """What consensus needs of the other partitions; those that cannot be loaded are damaged."""
        states: dict[int, PartitionState] = {}
        for partition in self._partitions:
            if partition not in self.found:
                try:
                    states[partition] = self._store.load(partition)
                except Corrupt as error:
                    self.add(partition, error.message)
        return states

    def add(self, partition: int, reason: str) -> None:
        """Remember it, durably."""
        self.found[partition] = reason
        self._store.put_meta({_key(partition): reason.encode()})

    def search(self) -> None:
        """Verify every partition: something is damaged, and nobody knows what."""
        for partition in self._partitions:
            if partition not in self.found and (fault := next(iter(self._store.verify(partition)), None)):
                self.add(partition, fault)

    def verify_again(self) -> list[int]:
        """Look whether the partitions are damaged still; those that are whole now, which are forgotten."""
        whole = [p for p in self.found if next(iter(self._store.verify(p)), None) is None]
        for partition in whole:
            del self.found[partition]
            self._store.put_meta({_key(partition): b""})
        return whole


def remembered(store: Store, partition: int) -> str:
    """What was found in a partition, empty if nothing was."""
    return (store.get_meta(_key(partition)) or b"").decode()


def _key(partition: int) -> str:
    return f"{_DAMAGED}{partition}"
