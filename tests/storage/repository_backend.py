"""What the contract of repositories asks of a backend's test module, and small things that it uses."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Protocol

from allsource.config.schema import Limits
from allsource.storage.model.events import NewEvent
from allsource.storage.repository import EventStreamRepository

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    """The repository's wall clock, which a test turns (backward, too)."""

    def __init__(self) -> None:
        self.now = BEGIN

    def __call__(self) -> int:
        return int(self.now.timestamp()) * 1_000_000 + self.now.microsecond


class RepositoryBackend(Protocol):
    """How a test opens a repository and treats it badly."""

    def make(self, *, limits: Limits | None = None, clock: Clock | None = None) -> EventStreamRepository:
        """A repository on the same data each time, not opened yet."""
        ...

    async def kill(self, repository: EventStreamRepository) -> EventStreamRepository | None:
        """Leave the repository as a killed process would and open what is left; None if nothing is."""
        ...

    def reopens(self) -> bool:
        """Whether data outlives the `async with`."""
        ...


def new(count: int = 1, type: str = "Tested", data: object = None) -> list[NewEvent]:
    return [NewEvent.json(type, data if data is not None else i) for i in range(count)]


def sharing_a_partition(count: int) -> list[str]:
    return [f"part-{i}{{shared}}" for i in range(count)]
