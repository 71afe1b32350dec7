"""Tags, marks and places in the node's backend: what the layers and the database say together equals a
replay of the log, wherever each entry is by now and whatever was cut."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest

from allsource.storage.interface import INDEX_MAX
from allsource.storage.model.entry import Entry, Mark, Place
from allsource.storage.model.errors import Corrupt
from allsource.storage.model.log import PartitionWrite, TagSlice
from allsource.storage.postgres.storage import PostgresStorage
from tests.storage.logs import LogModel
from tests.storage.postgres.test_postgres_storage import InFlight, drop, open_postgres, sql

P = 2
TAGS = ("t", "u")
STREAMS = ("a{t}", "b{t}", "c{u}", "plain", "${t}own")
MARKS = ("m", "n")


@pytest.fixture
def storage(postgres_url: str) -> Iterator[PostgresStorage]:
    storage = open_postgres(postgres_url)
    yield storage
    storage.close()


class RandomPlaces:
    """One partition: entries of several appends, cuts and syncs at random, compared with the model."""

    def __init__(self, url: str, seed: int) -> None:
        self.random = Random(seed)
        self.backend = InFlight(url, self.random)
        self.storage = self.backend.open()
        self.log = LogModel(P)
        self.term, self.moved = 1, 0
        self.gone: list[bytes] = []
        """First event ids that were cut off."""

    def run(self, steps: int) -> None:
        try:
            for step in range(steps):
                self.storage.write([self.change()])
                chance = self.random.random()
                if chance < 0.3:
                    self.storage.sync()
                elif chance < 0.35:
                    self.storage.close()
                    self.storage = self.backend.open()
                if self.random.random() < 0.3 or step == steps - 1:
                    self.check()
            assert list(self.storage.verify(P)) == []
        finally:
            self.storage.close()

    def change(self) -> PartitionWrite:
        random, log = self.random, self.log
        cut = None
        if log.entries and random.random() < 0.3:
            cut = random.randint(max(1, len(log.entries) - 8), len(log.entries) + 1)
            self.gone += [part.first_id for entry in log.entries[cut - 1 :] for part in entry.parts]
            log.cut(cut)
            self.term += 1
        return log.write(*[self.entry() for _ in range(random.choice((0, 1, 1, 3)))], truncate_from=cut)

    def entry(self) -> Entry:
        random = self.random
        if random.random() < 0.15:
            return self.log.noop(self.term)
        wanted = []
        for _ in range(random.choice((1, 1, 2, 5))):
            streams = random.sample(STREAMS, random.choice((0, 1, 1, 2, 4)))
            names = random.sample(MARKS, random.choice((0, 0, 1, 2)))
            self.moved += 1
            sizes = [(stream, random.choice((1, 1, 4))) for stream in streams]
            wanted.append((sizes, [Mark(name, self.moved, self.moved // 50) for name in names]))
        return self.log.appends(*wanted, term=self.term, seed=random.getrandbits(60))

    def check(self) -> None:
        storage, log, random = self.storage, self.log, self.random
        for tag in TAGS:
            pieces = log.tag_slices(tag)
            assert storage.tag_head(P, tag) == log.tag_head(tag)
            assert storage.tag_slices(P, tag, 1, forward=True, slices_max=1 << 20) == pieces
            for _ in range(4):
                start, most = random.randrange(log.number(tag) + 3), random.choice((1, 3))
                found = storage.tag_slices(P, tag, start, forward=True, slices_max=most)
                assert found == [p for p in pieces if p.first_number + p.count > start][:most]
                found = storage.tag_slices(P, tag, start, forward=False, slices_max=most)
                assert found == [p for p in reversed(pieces) if p.first_number <= start][:most]
        for name in MARKS:
            assert storage.mark(P, name) == log.mark(name, INDEX_MAX)
            for _ in range(4):
                index = random.randrange(len(log.entries) + 2)
                assert storage.mark(P, name, index_max=index) == log.mark(name, index)
        for stream in STREAMS:
            assert storage.head(P, stream) == log.head(stream)
            assert storage.slices(P, stream, 1, forward=True, slices_max=1 << 20) == log.slices(stream)
        for entry in log.entries:
            for ordinal, append in enumerate(entry.appends):
                for part in append.parts:
                    assert storage.place_of_append(P, part.first_id) == Place(entry.index, ordinal)
        for first_id in self.gone:
            assert storage.place_of_append(P, first_id) is None


@pytest.mark.parametrize("seed", range(6))
def test_places_equal_a_replay_through_cuts_and_syncs(postgres_url: str, seed: int) -> None:
    """Replay one alone: `pytest -k 'through_cuts and [SEED]'` with this file."""
    RandomPlaces(postgres_url, seed).run(steps=60)


def test_a_number_that_was_cut_off_is_given_again(storage: PostgresStorage) -> None:
    log = LogModel(P)
    storage.write([log.write(log.events(("a{t}", 2)), log.events(("b{t}", 3)))])
    storage.sync()
    gone = log.entries[1].parts[0]
    log.cut(2)
    again = log.events(("a{t}", 1), term=2)
    storage.write([log.write(again, truncate_from=2)])
    for _ in range(2):
        assert storage.tag_slices(P, "t", 1, forward=True, slices_max=9) == [
            TagSlice(1, 2, 1, 0),
            TagSlice(3, 1, 2, 0),
        ]
        assert storage.place_of_append(P, gone.first_id) is None
        assert storage.head(P, "b{t}") is None
        storage.sync()
    assert list(storage.verify(P)) == []


def test_a_mark_that_was_cut_off_is_where_it_was(storage: PostgresStorage) -> None:
    log = LogModel(P)
    storage.write([log.write(*[log.events(marks=[Mark("m", n, 0)]) for n in (1, 2, 3)])])
    storage.sync()
    assert storage.mark(P, "m") == log.mark("m", 3)
    log.cut(3)
    storage.write([log.write(truncate_from=3)])
    for _ in range(2):
        assert storage.mark(P, "m") == log.mark("m", 2)
        storage.sync()


def test_streams_that_nobody_reads_are_not_asked_for(postgres_url: str) -> None:
    """A replica writes to streams that began long ago: their heads wait until somebody wants them."""
    log, storage = LogModel(P), open_postgres(postgres_url)
    storage.write([log.write(*[log.events((f"s{n}{{t}}", 1)) for n in range(50)])])
    storage.close()
    storage = open_postgres(postgres_url)
    storage.load(P)
    before = storage.properties()["postgres_reads"]
    storage.write([log.write(*[log.events((f"s{n}{{t}}", 1)) for n in range(50)])])
    assert storage.properties()["postgres_reads"] == before
    for synced in (False, True):
        assert storage.head(P, "s7{t}") == log.head("s7{t}"), synced
        assert dict(storage.streams(P))["s8{t}"] == log.head("s8{t}"), synced
        storage.sync()
    storage.close()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("UPDATE log_parts SET ordinal = 1 WHERE log_index = 2", "indexed at"),
        ("UPDATE log_parts SET part = 1 WHERE log_index = 2", "version index"),
        ("UPDATE log_parts SET timestamp_us = 1 WHERE log_index = 2", "version index"),
        ("UPDATE log_parts SET first_tag_number = 9 WHERE log_index = 3", "tag index"),
        ("UPDATE log_parts SET tag = NULL WHERE log_index = 3", "tag index"),
        ("UPDATE log_marks SET position = 9 WHERE log_index = 3", "mark 'm'"),
        ("DELETE FROM log_marks WHERE log_index = 2", "mark 'm'"),
        ("INSERT INTO log_marks VALUES (2, 'more', 1, 0, 1, 0)", "the indexes hold"),
    ],
)
def test_verify_finds_places_that_were_tampered_with(postgres_url: str, damage: str, said: str) -> None:
    storage, log = open_postgres(postgres_url), LogModel(P)
    for n in range(3):
        log.events(("a{t}", 2), marks=[Mark("m", n, 0)])
    storage.write([log.write(*log.entries)])
    storage.close()
    sql(postgres_url, damage)
    storage = open_postgres(postgres_url)
    assert said in " ".join(storage.verify(P))
    drop(storage)


def test_a_chunk_that_nobody_reads_does_not_stop_a_reader(postgres_url: str) -> None:
    """Its damage is found by those who read it, and by those who pass the entry on."""
    storage, log = open_postgres(postgres_url), LogModel(P)
    entry = log.events(("a", 1), ("b", 1), data=b"0123456789")
    storage.write([log.write(entry, log.noop())])
    storage.close()
    sql(
        postgres_url,
        "UPDATE log SET record = set_byte(record, octet_length(record) - 9, 0) WHERE log_index = 1",
    )
    storage = open_postgres(postgres_url)
    for _ in range(2):
        (read,) = storage.entries_at(P, [1])
        assert [event.stream for event in read.events("a")] == ["a"]
        with pytest.raises(Corrupt, match="fails its CRC"):
            read.events("b")
        with pytest.raises(Corrupt, match="fails its CRC"):
            storage.entries(P, 1, 2, 1 << 20)
    storage.close()


def test_an_entry_that_was_read_and_cut_off_is_not_read_again(postgres_url: str) -> None:
    storage, log = open_postgres(postgres_url), LogModel(P)
    storage.write([log.write(*[log.events((stream, 1)) for stream in ("a", "b", "c")])])
    storage.close()
    storage = open_postgres(postgres_url)
    assert storage.entries_at(P, [2]) == [log.entries[1]]
    log.cut(2)
    storage.write([log.write(log.events(("d", 1), term=2), truncate_from=2)])
    storage.sync()
    storage._recent.clear()  # as when many others were written meanwhile
    assert storage.entries_at(P, [2]) == [log.entries[1]]
    storage.close()
