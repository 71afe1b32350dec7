"""What must hold between several settings."""

from __future__ import annotations

import pytest

from allsource.config.rules import ENTRY_ROOM_BYTES, EVENT_OVERHEAD_BYTES
from allsource.node.requests.lanes import GROUP_APPENDS_MAX, GROUP_BYTES_MAX, size_in_record
from allsource.storage.model.append import MARKS_MAX, STREAMS_MAX
from allsource.storage.model.chunks import pack_events
from allsource.storage.model.entry import EVENTS, Entry, Mark, NewAppend, make_entry
from tests.config.conftest import Faults, Load
from tests.foreign import foreign_event
from tests.storage.logs import new_append, part


@pytest.mark.parametrize(
    ("text", "line", "key", "message"),
    [
        (
            "suspicion_timeout: 199ms\n",
            7,
            "suspicion_timeout",
            "at least twice the heartbeat_interval, so 200ms",
        ),
        ("heartbeat_interval: 251ms\n", 7, "suspicion_timeout", "found 500ms; allowed: at least twice"),
        (
            "suspicion_timeout: 6s\n",
            7,
            "limits.request_timeout",
            "found 5s; allowed: more than the suspicion_timeout (6s)",
        ),
        (
            "limits: {event_bytes_max: 8MiB}\n",
            7,
            "limits.append_bytes_max",
            "found 8MiB; allowed: more than the event_bytes_max (8MiB)",
        ),
        (
            "limits: {uncommitted_bytes_max: 7MiB}\n",
            7,
            "limits.uncommitted_bytes_max",
            "found 7MiB; allowed: at least the append_bytes_max (8MiB)",
        ),
        (
            "limits: {frame_bytes_max: 10MiB}\n",
            7,
            "limits.frame_bytes_max",
            "found 10MiB; allowed: at least append_bytes_max + 256 x append_events_max + 1MiB (11716KiB)",
        ),
        (
            "limits:\n  read_bytes_max: 16MiB\n",
            8,
            "limits.frame_bytes_max",
            "found 16MiB; allowed: at least read_bytes_max + 256 x read_events_max",
        ),
        ("storage: {backend: postgres}\n", 7, "storage.dsn", "missing; backend postgres needs"),
        ("storage: {dsn: postgresql://a}\n", 7, "storage.dsn", "backend rocksdb has no use for it"),
        ("replication_factor: 2\n", 7, "replication_factor", "found 2; allowed: an odd number. 2 replicas"),
        ("replication_factor: 5\n", 7, "replication_factor", "at most the number of nodes (3)"),
    ],
)
def test_contradictions(faults: Faults, text: str, line: int, key: str, message: str) -> None:
    (fault,) = faults(text)
    assert (fault.line, fault.key) == (line, key)
    assert message in fault.message


@pytest.mark.parametrize(
    ("old", "new", "line", "key", "message"),
    [
        ("id: n2", "id: n1", 5, "nodes[1].id", "found 'n1', which nodes[0].id has already"),
        ("7002", "7001", 5, "nodes[1].port", "found '127.0.0.1:7001', which nodes[0].port has already"),
        ("8003", "7001", 6, "nodes[2].http_port", "which nodes[0].port has already"),
        ("8001", "7001", 4, "nodes[0].http_port", "which nodes[0].port has already"),
        (
            "host: 127.0.0.1, port: 7002",
            "host: LocalHost, port: 7001",
            5,
            "nodes[1].port",
            "127.0.0.1:7001",
        ),
        ("host: 127.0.0.1, port: 7003", "host: 0.0.0.0, port: 7003", 6, "nodes[2].host", "can connect to"),
        ("8002}", "8002, data_dir: ./data//demo/n1}", 5, "nodes[1].data_dir", "data/demo/n1'"),
        (
            "8002}",
            "8002, data_dir: data/demo/n1/x}",
            5,
            "nodes[1].data_dir",
            "apart from nodes[0].data_dir",
        ),
        ("8003}", "8003, data_dir: data}", 6, "nodes[2].data_dir", "apart from nodes[0].data_dir"),
    ],
)
def test_nodes_in_each_others_way(
    faults: Faults, minimal: str, old: str, new: str, line: int, key: str, message: str
) -> None:
    (fault,) = faults(minimal.replace(old, new), whole=True)
    assert (fault.line, fault.key) == (line, key)
    assert message in fault.message


def test_different_machines_may_use_equal_ports_and_directories(load: Load, minimal: str) -> None:
    text = minimal
    for i in (1, 2, 3):
        old = f"host: 127.0.0.1, port: 700{i}, http_port: 800{i}"
        text = text.replace(old, f"host: 10.0.0.{i}, port: 7000, http_port: 8000, data_dir: /data")
    assert {node.port for node in load(text, whole=True).nodes} == {7000}


def test_a_wildcard_is_fine_for_a_cluster_of_one(load: Load) -> None:
    text = "cluster_name: a\nsecret: 12345678\nnodes: [{id: n, host: 0.0.0.0, port: 1, http_port: 2}]\n"
    assert load(text, whole=True).nodes[0].host == "0.0.0.0"


@pytest.mark.parametrize(
    ("nodes", "factor", "fine"), [(2, 1, True), (2, 2, True), (4, 2, False), (4, 4, False)]
)
def test_an_even_factor_is_for_two_nodes_only(load: Load, nodes: int, factor: int, fine: bool) -> None:
    head = f"cluster_name: a\nsecret: 12345678\nreplication_factor: {factor}\nnodes:\n"
    text = head + "".join(f"  - {{id: n{i}, host: h{i}, port: 1, http_port: 2}}\n" for i in range(nodes))
    if fine:
        assert load(text, whole=True).replication_factor == factor
    else:
        with pytest.raises(Exception, match=r"line 3: replication_factor: .*an odd number"):
            load(text, whole=True)


@pytest.mark.parametrize("nodes", [0, 16])
def test_how_many_nodes_there_may_be(faults: Faults, nodes: int) -> None:
    text = "cluster_name: a\nsecret: 12345678\nnodes: ["
    text += ", ".join(f"{{id: n{i}, host: h{i}, port: 1, http_port: 2}}" for i in range(nodes)) + "]\n"
    (fault,) = faults(text, whole=True)
    assert (fault.line, fault.key, fault.message) == (3, "nodes", f"found {nodes} nodes; allowed: 1 to 15")


# -- secrets that everybody knows


@pytest.mark.parametrize("host", ["10.0.0.2", "0.0.0.0", "db-1.example.org"])
def test_an_examples_secret_is_refused_where_others_can_connect(
    faults: Faults, minimal: str, host: str
) -> None:
    text = minimal.replace("correct horse", "change-me-three-nodes")
    text = text.replace("host: 127.0.0.1, port: 7002", f"host: {host}, port: 7002")
    (fault, *_) = faults(text, whole=True)
    assert (fault.line, fault.key) == (2, "secret")
    assert f"n2 can be reached from other machines ({host})" in fault.message
    assert "allsource config secret > FILE; chmod 600 FILE" in fault.message


def test_the_clients_secret_is_held_to_the_same(faults: Faults, minimal: str) -> None:
    text = minimal.replace("127.0.0.1, port: 7002", "10.0.0.2, port: 7002")
    (fault,) = faults(text + "client_secret: change-me-too\n", whole=True)
    assert (fault.line, fault.key) == (7, "client_secret")
    assert "`client_secret: {file: FILE}`" in fault.message


def test_an_examples_secret_is_fine_on_this_machine_alone(load: Load, minimal: str) -> None:
    text = minimal.replace("correct horse", "change-me-three-nodes").replace(
        "127.0.0.1, port: 7002", "localhost, port: 7002"
    )
    assert load(text, whole=True).secret == "change-me-three-nodes"


def test_ones_own_secret_may_be_used_anywhere(load: Load, minimal: str) -> None:
    assert load(minimal.replace("127.0.0.1, port: 7002", "10.0.0.2, port: 7002"), whole=True).secret


def test_clients_have_a_key_of_their_own(faults: Faults) -> None:
    head = "cluster_name: a\nsecret: 12345678\nclient_secret: '12345678'\n"
    (fault,) = faults(head + "nodes: [{id: n, host: h, port: 1, http_port: 2}]\n", whole=True)
    assert (fault.line, fault.key) == (3, "client_secret")
    assert "every client could be a node" in fault.message


NUMBER_MAX = 2**63 - 1
MESSAGE_BYTES = 256
"""What a frame has around its one entry; less."""


def entry_of(*appends: NewAppend) -> Entry:
    return make_entry(
        partition=1,
        index=NUMBER_MAX,
        term=NUMBER_MAX,
        kind=EVENTS,
        first_position=NUMBER_MAX,
        timestamp_us=NUMBER_MAX,
        appends=appends,
    )


def test_a_frame_has_room_for_the_longest_names_in_an_append() -> None:
    """It is the events alone that `append_bytes_max` counts. An entry that fits into no frame stops its
    partition for good."""
    chunks = pack_events([foreign_event("t" * 128, b"1", id=bytes(16))])
    streams = [f"{number:0127}}}" for number in range(STREAMS_MAX)]
    marks = [Mark(f"{number:0128}", NUMBER_MAX, NUMBER_MAX) for number in range(MARKS_MAX)]
    new = new_append(*[(stream, NUMBER_MAX, NUMBER_MAX, chunks) for stream in streams], marks=marks)
    beside_events = len(entry_of(new).record) - STREAMS_MAX * len(chunks[0].data)
    assert beside_events + MESSAGE_BYTES < ENTRY_ROOM_BYTES + EVENT_OVERHEAD_BYTES * STREAMS_MAX


@pytest.mark.parametrize("stream", ["s", "s" * 128])
def test_a_frame_has_room_for_the_appends_that_share_an_entry(stream: str) -> None:
    new = part(stream, NUMBER_MAX, first_tag_number=NUMBER_MAX)
    count = min(GROUP_APPENDS_MAX, GROUP_BYTES_MAX // size_in_record(new))
    assert len(entry_of(*[new] * count).record) + MESSAGE_BYTES < ENTRY_ROOM_BYTES
