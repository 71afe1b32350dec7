"""The layers above the database: what a truncation in one of them undoes in those below."""

from __future__ import annotations

from allsource.storage.interface import INDEX_MAX
from allsource.storage.model.entry import Entry, Mark, Place
from allsource.storage.model.log import MarkAt, StreamSlice, TagHead, TagSlice
from allsource.storage.postgres.overlay import Layer, Overlay, page
from tests.storage.logs import LogModel

P = 3


def extend(layer: Layer, *entries: Entry) -> None:
    for entry in entries:
        layer.of(P).append(entry, opens_term=False)


def two_layers() -> tuple[Layer, Layer, LogModel]:
    """Entries 1 to 3 are in the database, 4 to 7 in the older layer; the newer one cut at 6."""
    log, older, newer = LogModel(P), Layer(), Layer()
    for n in range(3):
        log.events(("a{t}", 1), marks=[Mark("m", n, 0)])
    extend(
        older,
        log.appends(
            ([("a{t}", 2)], [Mark("m", 7, 0)]),
            ([("a{t}", 1), ("d", 1)], [Mark("m", 8, 0), Mark("other", 1, 0)]),
        ),
        log.events(("b", 1)),
        log.events(("a{t}", 1), marks=[Mark("m", 9, 0)]),
        log.events(("c", 1), ("c{t}", 2), marks=[Mark("late", 1, 0)]),
    )
    newer.of(P).truncate(6)
    return newer, older, log


def test_nothing_written_is_all_in_the_database() -> None:
    overlay = Overlay((Layer(),), P)
    assert overlay.bound == INDEX_MAX
    assert overlay.entries() == []
    assert overlay.entry(1) is None
    assert overlay.newest("a{t}") is None
    assert overlay.place_of_append(bytes(16)) is None
    assert overlay.tag_head("t") is None
    assert overlay.mark("m", INDEX_MAX) is None


def test_a_cut_hides_what_older_layers_hold_behind_it() -> None:
    newer, older, log = two_layers()
    gone = log.entries[5:]
    overlay = Overlay((newer, older), P)
    assert [entry.index for entry in overlay.entries()] == [4, 5]
    for entry in gone:
        assert overlay.entry(entry.index) is None
        for part in entry.parts:
            assert overlay.place_of_append(part.first_id) is None
    log.cut(6)
    assert overlay.newest("a{t}") == log.slices("a{t}")[-1]
    assert overlay.slices("a{t}") == log.slices("a{t}")[3:]
    assert overlay.newest("c") is None
    assert overlay.streams() == {"a{t}", "b", "d"}
    assert overlay.tag_head("t") == log.tag_head("t") == TagHead(6, 4)
    assert overlay.tag_slices("t") == log.tag_slices("t")[3:]
    assert overlay.mark("m", INDEX_MAX) == log.mark("m", INDEX_MAX) == MarkAt(8, 0, 4, 1)
    assert overlay.mark("late", INDEX_MAX) is None
    assert overlay.bound == 4


def test_appends_of_one_entry_keep_their_places() -> None:
    newer, older, log = two_layers()
    overlay = Overlay((newer, older), P)
    fourth = log.entries[3]
    for ordinal, append in enumerate(fourth.appends):
        for part in append.parts:
            assert overlay.place_of_append(part.first_id) == Place(4, ordinal)
    assert [piece.part for piece in overlay.slices("a{t}")] == [0, 1]
    assert [piece.part for piece in overlay.slices("d")] == [2]


def test_a_mark_is_what_it_was_at_an_index() -> None:
    _, older, log = two_layers()
    overlay = Overlay((older,), P)
    for index in range(4, 8):
        assert overlay.mark("m", index) == log.mark("m", index)
        assert overlay.mark("late", index) == log.mark("late", index)
    assert overlay.mark("m", 3) is None, "the database must be asked"


def test_what_comes_after_a_cut_stands_above_it() -> None:
    newer, older, log = two_layers()
    log.cut(6)
    extend(
        newer,
        log.events(("c", 2), ("c{t}", 1), term=2, marks=[Mark("m", 20, 1)]),
        log.events(("a{t}", 1), term=2),
    )
    overlay = Overlay((newer, older), P)
    assert overlay.entries() == log.entries[3:]
    assert overlay.entry(6) is log.entries[5]
    for stream in ("a{t}", "b", "c", "c{t}", "d"):
        assert overlay.newest(stream) == log.slices(stream)[-1]
        assert overlay.slices(stream) == [piece for piece in log.slices(stream) if piece.index > 3]
    for entry in log.entries[3:]:
        for ordinal, append in enumerate(entry.appends):
            for part in append.parts:
                assert overlay.place_of_append(part.first_id) == Place(entry.index, ordinal)
    assert overlay.tag_head("t") == log.tag_head("t")
    assert overlay.tag_slices("t") == [piece for piece in log.tag_slices("t") if piece.index > 3]
    assert [overlay.mark("m", index) for index in (5, 6)] == [log.mark("m", index) for index in (5, 6)]


def test_a_cut_below_all_layers_reaches_the_database() -> None:
    newer, older, _ = two_layers()
    newer.of(P).truncate(2)
    overlay = Overlay((newer, older), P)
    assert overlay.entries() == []
    assert overlay.bound == 2
    assert newer.of(P).cuts
    assert not older.of(P).cuts
    assert overlay.newest("a{t}") is None, "the database must be asked, below the bound"
    assert overlay.tag_head("t") is None
    assert overlay.mark("m", INDEX_MAX) is None
    assert overlay.streams() == set()


def test_a_cut_within_a_layer_tells_the_database_nothing() -> None:
    _, older, log = two_layers()
    share = older.of(P)
    share.truncate(5)
    assert not share.cuts
    assert [entry.index for entry in share.entries] == [4]
    assert share.slices.keys() == {"a{t}", "d"}
    assert share.marks.keys() == {"m", "other"}
    assert len(share.ids) == 3
    log.cut(5)
    overlay = Overlay((older,), P)
    assert overlay.newest("a{t}") == log.slices("a{t}")[-1]
    assert overlay.tag_slices("t") == log.tag_slices("t")[3:]
    assert overlay.mark("m", INDEX_MAX) == log.mark("m", INDEX_MAX)
    share.truncate(4)
    assert (share.floor, share.cuts, share.entries) == (4, False, [])
    assert (share.ids, share.tags, share.marks) == ({}, {}, {})


def test_a_page_takes_from_the_database_only_what_lies_below() -> None:
    asked: list[int] = []
    below = [TagSlice(1, 3, 1, 0), TagSlice(4, 2, 2, 0)]
    above = [TagSlice(6, 2, 3, 0), TagSlice(8, 5, 3, 1)]

    def ask(start: int, slices_max: int, *, forward: bool) -> list[TagSlice]:
        def stored(most: int) -> list[TagSlice]:
            asked.append(most)
            if forward:
                return [piece for piece in below if piece.first_number + piece.count > start][:most]
            return [piece for piece in reversed(below) if piece.first_number <= start][:most]

        return page(above, start, forward=forward, slices_max=slices_max, stored=stored)

    assert ask(6, 5, forward=True) == above
    assert ask(12, 5, forward=True) == above[1:]
    assert ask(13, 5, forward=True) == []
    assert ask(9, 2, forward=False) == above[::-1]
    assert asked == []
    assert ask(5, 2, forward=True) == [below[1], above[0]]
    assert ask(9, 3, forward=False) == [*above[::-1], below[1]]
    assert ask(2, 9, forward=False) == below[:1]
    assert asked == [2, 1, 9]
    nothing: list[StreamSlice] = []
    assert page(nothing, 1, forward=True, slices_max=5, stored=lambda _: nothing) == []
