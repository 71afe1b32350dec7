"""What the live table says of a cluster, at several widths, and how it gets onto a terminal."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest
from rich.console import Console

from allsource.node.cli.control.picture import ClusterPicture, NodePicture, PartitionPicture
from allsource.node.cli.launch.layout import COMPLAINT_S, brief, duration, lines, size
from allsource.node.cli.launch.overview import ChildState, NodeSeen, Overview, Rates
from allsource.node.cli.launch.table import draw

GIB = 1 << 30


def picture(
    of: str,
    owners: list[str | None],
    *,
    ids: tuple[str, ...] = ("n1", "n2", "n3"),
    term: int = 1,
    commit: int = 10,
    position: int = 10,
    states: dict[str, str] | None = None,
    damaged: Mapping[str, tuple[int, ...]] = MappingProxyType({}),
) -> ClusterPicture:
    """The cluster as a node sees it; each partition is on the first three nodes after its number."""
    nodes = tuple(
        NodePicture(id_, (states or {}).get(id_, "up"), False, damaged.get(id_, ()), 1, "a", "h")
        for id_ in ids
    )
    partitions = tuple(
        PartitionPicture(
            number,
            owner,
            term,
            tuple(ids[(number + k) % len(ids)] for k in range(min(3, len(ids)))),
            commit,
            position,
        )
        for number, owner in enumerate(owners)
    )
    return ClusterPicture(of, 1, "c", "rocksdb", "fsync", "on disks", nodes, partitions)


def seen(number: int, **changed: Any) -> NodeSeen:
    """A node that is well, or changed."""
    owners: list[str | None] = [f"n{p % 3 + 1}" for p in range(32)]
    well = NodeSeen(
        id=f"n{number}",
        address=f"127.0.0.1:710{number}",
        http=f"http://127.0.0.1:810{number}",
        state=ChildState.READY,
        pid=16_000 + number,
        is_ready=True,
        picture=picture(f"n{number}", owners),
        starts=1,
        uptime_s=12.0,
        disk_used=GIB // 2,
        disk_free=70 * GIB,
    )
    return replace(well, **changed)


def text_of(overview: Overview, width: int = 200) -> list[str]:
    return ["".join(span.text for span in line).rstrip() for line in lines(overview, width)]


def row(overview: Overview, node_id: str, width: int = 200) -> str:
    (found,) = [line for line in text_of(overview, width) if line.startswith(f"{node_id} ")]
    return found


def test_a_healthy_cluster() -> None:
    overview = Overview([seen(1), seen(2), seen(3)], {0: 1000.0, 1: 500.0})
    head, *rows = text_of(overview)[:4]
    assert head.split() == [
        *("node", "state", "pid", "leads", "copies", "events/s"),
        *("behind", "uptime", "used", "free", "http", "address", "starts"),
    ]
    assert rows[0].split() == [
        *("n1", "ready", "16001", "11", "32", "1,000"),
        *("0", "12s", "512M", "70G", "127.0.0.1:8101", "127.0.0.1:7101", "1"),
    ]
    assert text_of(overview)[4] == "owners by partition, 1,500 events/s"
    assert overview.alarms() == []


def test_who_was_started_by_hand_and_serves_is_up_and_its_end_forgotten() -> None:
    """It was called `ended ... killed` for ever."""
    n2 = seen(2, state=ChildState.ENDED, by_hand=True, exit_signal=9, complaint="killed by signal 9")
    text = text_of(Overview([seen(1), n2, seen(3)]))
    assert row(Overview([seen(1), n2, seen(3)]), "n2").startswith("n2    ready (by hand)")
    assert not any("killed" in line for line in text)


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"state": ChildState.ENDED, "exit_signal": 9}, "killed "),
        ({"state": ChildState.WAITING, "exit_signal": 9}, "killed, restarting "),
        ({"state": ChildState.WAITING}, "restarting "),
        ({"state": ChildState.ENDED}, "ended "),
        ({"state": ChildState.ENDED, "given_up": True}, "given up "),
        ({"state": ChildState.STARTING}, "starting "),
        ({"state": ChildState.RUNNING}, "silent "),
    ],
)
def test_how_a_node_is_that_does_not_answer(changed: dict[str, Any], word: str) -> None:
    away = seen(2, picture=None, is_ready=False, **changed)
    assert row(Overview([seen(1), away, seen(3)]), "n2").startswith(f"n2    {word}")


def test_a_node_that_the_others_miss_is_not_called_well() -> None:
    """It answers us and is cut off from them."""
    owners: list[str | None] = ["n1"] * 32
    others = [seen(n, picture=picture(f"n{n}", owners, states={"n2": "down"}, term=2)) for n in (1, 3)]
    overview = Overview([others[0], seen(2), others[1]])
    assert "ready, down to others" in row(overview, "n2")
    assert overview.missing() == {"n2"}


def test_dead_nodes_among_the_replicas_are_marked() -> None:
    overview = Overview([seen(1), seen(2, picture=None, state=ChildState.ENDED), seen(3)])
    assert "32 off" in row(overview, "n2")
    text = text_of(overview)
    assert any(line.startswith("owners by partition; !: fewer copies than 3") for line in text)
    assert any(" 0 n1!" in line for line in text)
    assert overview.alarms() == []


def test_no_majority_is_an_alarm_that_names_whom_to_bring_back() -> None:
    overview = Overview([seen(1), seen(2, picture=None), seen(3, picture=None)])
    (alarm,) = overview.alarms()
    assert alarm.startswith(
        "NO MAJORITY of the copies of 32 partitions (0-31): no appends there until n2, n3"
    )
    assert text_of(overview, 80)[0] == f"ALARM: {alarm}"


def test_a_damaged_copy_is_an_alarm() -> None:
    drawn = picture("n1", ["n1"] * 4, damaged={"n2": (1, 2)})
    overview = Overview([seen(n, picture=drawn) for n in (1, 2, 3)])
    assert "ready, damaged" in row(overview, "n2")
    assert overview.alarms() == ["DAMAGED on n2: its copies of 2 partitions (1-2); its log says more"]


def test_no_owner_is_an_alarm() -> None:
    owners: list[str | None] = ["n1", None, None, "n2"]
    (alarm,) = Overview([seen(n, picture=picture(f"n{n}", owners)) for n in (1, 2, 3)]).alarms()
    assert alarm.startswith("NO OWNER of 2 partitions (1-2)")


def test_errors_vanish_when_they_no_longer_hold() -> None:
    line = "2026-01-01T00:00:00Z [warning  ] peer is down          node=n1 peer=n2"
    fresh = seen(1, complaint=line, complaint_age_s=COMPLAINT_S - 1)
    old = replace(fresh, complaint_age_s=COMPLAINT_S + 1)
    assert "n1: peer is down peer=n2" in text_of(Overview([fresh]))
    assert not any("peer is down" in one for one in text_of(Overview([old])))
    still = replace(old, is_ready=False)
    assert any("peer is down" in one for one in text_of(Overview([still]))), "it is not well yet"
    assert brief("[bold]as it is[/bold]", "n1") == "[bold]as it is[/bold]"


def test_how_far_a_node_is_behind_the_others() -> None:
    owners: list[str | None] = ["n1"] * 4
    ahead = seen(1, picture=picture("n1", owners, commit=100))
    late = seen(2, picture=picture("n2", owners, commit=90))
    overview = Overview([ahead, late, seen(3, picture=None)])
    assert [overview.behind(node) for node in overview.nodes] == [0, 40, None]


def test_the_newest_picture_counts() -> None:
    """A node that was cut off has an old one."""
    old, new = picture("n1", ["n1"], term=1), picture("n2", ["n2"], term=2)
    assert Overview([seen(1, picture=old), seen(2, picture=new)]).picture is new
    assert Overview([seen(1, picture=None)]).picture is None
    assert not any("owners" in line for line in text_of(Overview([seen(1, picture=None)])))


def test_rates_are_of_the_last_seconds() -> None:
    rates = Rates(window_s=3.0)
    assert rates.by_partition() == {}
    for now, position in enumerate((0, 100, 200, 300, 300, 300, 300)):
        rates.add(float(now), [picture("n1", ["n1"], position=position), picture("n2", ["n1"], position=0)])
        if now == 2:
            assert rates.by_partition() == {0: 100.0}
    assert rates.by_partition() == {0: 0.0}


# -- widths


def eight() -> Overview:
    ids = tuple(f"n{n}" for n in range(1, 9))
    owners: list[str | None] = [ids[p % 8] for p in range(32)]
    nodes = [seen(n, picture=picture(f"n{n}", owners, ids=ids), uptime_s=90_000.0) for n in range(1, 9)]
    nodes[4] = replace(nodes[4], by_hand=True, state=ChildState.ENDED)
    nodes[6] = replace(
        nodes[6], picture=None, state=ChildState.ENDED, exit_signal=9, pid=None, uptime_s=None
    )
    return Overview(nodes, dict.fromkeys(range(32), 12_345.0))


@pytest.mark.parametrize("width", [80, 120, 200])
@pytest.mark.parametrize("overview", [Overview([seen(1), seen(2), seen(3)], {0: 1.0}), eight()])
def test_nothing_is_cut_at_any_width(overview: Overview, width: int) -> None:
    text = text_of(overview, width)
    assert all(len(line) <= width for line in text)
    assert not any("\u2026" in line for line in text)
    for node in overview.nodes:
        line = row(overview, node.id, width)
        assert node.http.removeprefix("http://") in line, "addresses are whole, or not there"


def test_what_is_left_out_first() -> None:
    def columns(width: int) -> set[str]:
        return set(text_of(eight(), width)[0].split())

    assert columns(80) >= {"node", "state", "pid", "http", "leads", "events/s"}
    assert columns(120) >= columns(80) | {"behind", "uptime", "free", "used"}
    assert columns(200) >= columns(120) | {"copies", "address", "starts"}
    assert columns(20) == {"node", "state"}


def test_a_store_without_files_has_no_columns_for_them() -> None:
    overview = Overview([seen(n, disk_used=None, disk_free=None) for n in (1, 2, 3)])
    assert not {"used", "free"} & set(text_of(overview)[0].split())


# -- on a terminal


def drawn(overview: Overview, *, terminal: bool, width: int = 120) -> str:
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=terminal, color_system="standard")
    console.print(draw(overview, width))
    return file.getvalue()


def test_colours_on_a_terminal_and_none_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    overview = Overview([seen(1), seen(2, picture=None, state=ChildState.ENDED), seen(3)])
    assert "\x1b[32mready" in drawn(overview, terminal=True)
    assert "\x1b[1;31mended" in drawn(overview, terminal=True)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[32m" not in drawn(overview, terminal=True)
    assert "31m" not in drawn(overview, terminal=True)
    assert "ready" in drawn(overview, terminal=True)


def test_what_is_not_a_terminal_gets_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    file = io.StringIO()
    Console(file=file, width=120).print(draw(eight(), 120))
    assert "\x1b" not in file.getvalue()
    assert "n8" in file.getvalue()


def test_log_lines_are_never_read_as_markup() -> None:
    loud = seen(1, complaint="[bold]loud[/bold]", is_ready=False)
    assert "[bold]loud[/bold]" in drawn(Overview([loud]), terminal=False)


def test_times_and_sizes_are_short() -> None:
    assert [duration(s) for s in (0.4, 59.9, 190, 18_120, 1_052_000)] == [
        "0s",
        "59s",
        "3m10s",
        "5h02m",
        "12d04h",
    ]
    sizes = [size(n) for n in (0, 640 * 1024, 12 << 20, GIB + GIB // 2, 120 * GIB, 999 << 40)]
    assert sizes == ["0K", "640K", "12M", "1.5G", "120G", "999T"]
