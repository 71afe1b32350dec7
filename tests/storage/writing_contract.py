"""The repositories' contract under many writers at once; see `rivals` for the model."""

from __future__ import annotations

import pytest

from allsource.storage.repository import EventStreamRepository
from tests.storage.rivals import MANY, ONE, TASKS, THREADS, Rivals, all_at_once

STREAMS = pytest.mark.parametrize("streams", [ONE, MANY], ids=["one stream", "many streams"])


class WritingContract:
    """A part of `RepositoryContract`, whose `events` fixture it uses."""

    @STREAMS
    async def test_of_64_tasks_one_wins_each_version(
        self, events: EventStreamRepository, streams: tuple[str, ...]
    ) -> None:
        rivals = Rivals(events, streams)
        await rivals.by_tasks(TASKS, tries=32)
        await rivals.check()

    @STREAMS
    async def test_of_8_threads_one_wins_each_version(
        self, events: EventStreamRepository, streams: tuple[str, ...]
    ) -> None:
        rivals = Rivals(events, streams)
        await rivals.by_threads(THREADS, tries=32)
        await rivals.check()

    @STREAMS
    async def test_of_64_claims_to_a_version_one_is_granted(
        self, events: EventStreamRepository, streams: tuple[str, ...]
    ) -> None:
        await all_at_once(events, streams, rounds=8)
