"""All appends that are proposed together are one entry: one index, one message, one sum of bytes."""

from __future__ import annotations

from allsource.cluster.consensus.environment import ConsensusConfig
from allsource.cluster.consensus.messages import Append
from allsource.cluster.consensus.multiraft import MultiRaft
from allsource.storage.model.entry import Append as StoredAppend
from allsource.storage.model.entry import Mark, NewAppend, Place, decode_entry
from tests.cluster.consensus.lab import Bench
from tests.simulation.disk import SimDisk
from tests.storage.logs import part


def leader(**knobs: int) -> Bench:
    bench = Bench(config=ConsensusConfig(**knobs))
    bench.elect()
    bench.accept("b")
    bench.sent()
    return bench


def test_an_entry_holds_the_appends_in_their_order_each_with_its_own_place() -> None:
    bench = leader()
    marks = NewAppend(StoredAppend((), (Mark("m", 3, 1),)), ())
    entry = bench.group.propose([part("s", 1, 2), marks, part("t", 1)], 7)
    assert entry.appends == (part("s", 1, 2).append, marks.append, part("t", 1).append)
    assert [entry.stored(ordinal).first_position for ordinal in range(3)] == [1, 3, 3]
    assert entry.next_position == bench.group.log.next_position == 4
    write = bench.write()
    assert write is not None
    assert [decode_entry(one.record) for one in write.entries] == [entry]


def test_marks_alone_take_no_position() -> None:
    bench = leader()
    before = bench.group.log.next_position
    entry = bench.group.propose([NewAppend(StoredAppend((), (Mark("m", 3, 1),)), ())], 7)
    assert entry.first_position == entry.next_position == before
    assert bench.group.propose([part("s", 1)], 7).first_position == before


def test_the_next_index_is_that_of_the_next_entry() -> None:
    core = alone()
    for number in range(1, 4):
        place = Place(core.next_index(0), 1)
        entry = core.propose(0, [part("s", 2 * number - 1), part("s", 2 * number)], 0)
        assert place.index == entry.index
        assert entry.stored(place.ordinal).parts[0].first_version == 2 * number


def alone() -> MultiRaft:
    """The leader of its one partition, which nobody else keeps."""
    disk = SimDisk([0])
    core = MultiRaft(
        "a",
        ("a",),
        {0: disk.load(0)},
        disk,
        config=ConsensusConfig(),
        replication_factor=1,
        partition_count=1,
        incarnation=1,
        seed=1,
        now=0,
    )
    now = 0
    while not core.can_propose(0):
        now += 10_000
        core.tick(now)
        while (ready := core.ready()) is not None:
            disk.write(ready.writes)
            core.persisted(ready.number, now)
    return core


def test_an_entry_is_never_cut_and_one_that_is_too_large_travels_alone() -> None:
    bench = leader(append_bytes_max=1000)
    small = bench.group.propose([part("s", 1)], 0)
    large = bench.group.propose([part(f"s{n}", 1, data=bytes(100)) for n in range(20)], 0)
    last = bench.group.propose([part("s", 2)], 0)
    assert len(large.record) > 2000
    to_b = [m.entries for peer, m in bench.sent() if peer == "b" and isinstance(m, Append)]
    assert to_b == [[small], [large], [last]]


def test_all_bytes_of_an_entry_are_uncommitted_until_it_is_committed() -> None:
    bench = leader(uncommitted_bytes_max=2000)
    entry = bench.group.propose([part(f"s{n}", 1, data=bytes(100)) for n in range(20)], 0)
    assert bench.group.leadership is not None
    assert bench.group.leadership.uncommitted_bytes == len(entry.record) > 2000
    assert not bench.group.can_propose()
    bench.sync()
    bench.accept("b")
    assert bench.group.can_propose()
    assert bench.group.leadership.uncommitted_bytes == 0
