"""The layers above the database: what a truncation in one of them undoes in those below."""

from __future__ import annotations

from allsource.storage.model.entry import Entry
from allsource.storage.model.log import StreamHead
from allsource.storage.postgres.overlay import INDEX_MAX, Layer, Overlay
from tests.storage.logs import LogModel

P = 3


def extend(layer: Layer, log: LogModel, *entries: Entry) -> None:
    for entry in entries:
        created = {}
        for part in entry.parts:
            head = log.head(part.stream)
            assert head is not None
            created[part.stream] = head.created_us
        layer.of(P).append(entry, created, opens_term=False)


def two_layers() -> tuple[Layer, Layer, LogModel]:
    """Entries 1 to 3 are in the database, 4 to 7 in the older layer; the newer one cut at 6."""
    log, older, newer = LogModel(P), Layer(), Layer()
    for _ in range(3):
        log.events(("a", 1))
    extend(
        older, log, log.events(("a", 2)), log.events(("b", 1)), log.events(("a", 1)), log.events(("c", 1))
    )
    newer.of(P).truncate(6)
    return newer, older, log


def test_nothing_written_is_all_in_the_database() -> None:
    overlay = Overlay((Layer(),), P)
    assert overlay.bound == INDEX_MAX
    assert overlay.entries() == []
    assert overlay.entry(1) is None
    assert overlay.head("a") is None
    assert overlay.index_of_append(bytes(16)) is None


def test_a_cut_hides_what_older_layers_hold_behind_it() -> None:
    newer, older, log = two_layers()
    gone = log.entries[5:]
    overlay = Overlay((newer, older), P)
    assert [entry.index for entry in overlay.entries()] == [4, 5]
    for entry in gone:
        assert overlay.entry(entry.index) is None
        assert overlay.index_of_append(entry.parts[0].first_id) is None
    log.cut(6)
    assert overlay.head("a") == log.head("a")
    assert overlay.slices("a") == log.slices("a")[3:]
    assert overlay.head("c") is None
    assert overlay.streams() == {"a", "b"}
    assert overlay.bound == 4


def test_what_comes_after_a_cut_stands_above_it() -> None:
    newer, older, log = two_layers()
    log.cut(6)
    sixth, seventh = log.events(("c", 2), term=2), log.events(("a", 1), term=2)
    extend(newer, log, sixth, seventh)
    overlay = Overlay((newer, older), P)
    assert overlay.entries() == log.entries[3:]
    assert overlay.entry(6) is sixth
    for stream in ("a", "b", "c"):
        assert overlay.head(stream) == log.head(stream)
        assert overlay.slices(stream) == [piece for piece in log.slices(stream) if piece.index > 3]
    for entry in log.entries[3:]:
        assert overlay.index_of_append(entry.parts[0].first_id) == entry.index


def test_a_cut_below_all_layers_reaches_the_database() -> None:
    newer, older, _ = two_layers()
    newer.of(P).truncate(2)
    overlay = Overlay((newer, older), P)
    assert overlay.entries() == []
    assert overlay.bound == 2
    assert newer.of(P).cuts
    assert not older.of(P).cuts
    assert overlay.head("a") is None, "the database must be asked, below the bound"
    assert overlay.streams() == set()


def test_a_cut_within_a_layer_tells_the_database_nothing() -> None:
    _, older, log = two_layers()
    share = older.of(P)
    share.truncate(5)
    assert not share.cuts
    assert [entry.index for entry in share.entries] == [4]
    assert share.slices.keys() == {"a"}
    fourth = log.entries[3]
    assert Overlay((older,), P).head("a") == StreamHead(
        5, 4, log.entries[0].timestamp_us, fourth.timestamp_us
    )
    share.truncate(4)
    assert (share.floor, share.cuts, share.entries) == (4, False, [])
