"""Three nodes from one file, asked over HTTP like with curl: any node answers anything."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from allsource.node.cli.control.cluster import ClusterProcess
from allsource.node.cli.control.ports import free_ports
from integration.harness import Clusters, ask, greeting, wait_for


@pytest.fixture
async def three(clusters: Clusters) -> ClusterProcess:
    return await clusters.start(3)


async def test_append_conflict_retry_read_and_map_through_each_node(three: ClusterProcess) -> None:
    for number, node_id in enumerate(three.ids):
        stream = f"story-{number}"
        path = f"/v1/streams/{stream}/events"
        event_id = str(uuid.uuid4())
        body = greeting("first", id=event_id, expected_version="no_stream")

        status, first = await ask(three, node_id, path, body)
        assert (status, first["first_version"], first["last_version"]) == (201, 1, 1)

        status, conflict = await ask(three, node_id, path, greeting("other", expected_version="no_stream"))
        assert (status, conflict["error"], conflict["actual"]) == (409, "wrong_expected_version", 1)
        assert conflict["definite"] is True

        for other in three.ids:  # the same answer again, whoever is asked
            assert await ask(three, other, path, body) == (200, first)
        for other in three.ids:
            status, page = await ask(three, other, path)
            assert status == 200
            assert [event["id"] for event in page["events"]] == [event_id]
            assert page["current_version"] == 1


async def test_the_map_is_the_same_at_every_node(three: ClusterProcess) -> None:
    owners = tuple(group[0] for group in three.replicas())
    for node_id in three.ids:

        async def sees_all(node_id: str = node_id) -> bool:
            picture = await three.picture(node_id)
            assert picture is not None
            assert picture.durability == "fsync"
            assert [node.id for node in picture.nodes] == three.ids
            return picture.owners() == owners and {node.state for node in picture.nodes} == {"up"}

        await wait_for(three, sees_all, f"{node_id} to see every node up and every owner in its place")


async def test_an_append_to_several_streams_is_all_or_nothing(three: ClusterProcess) -> None:
    def both(expected: Any) -> dict[str, Any]:
        events = [{"type": "Moved", "data": 1}]
        return {
            "streams": [
                {"stream": "{pair}-from", "expected_version": "any", "events": events},
                {"stream": "{pair}-to", "expected_version": expected, "events": events},
            ]
        }

    assert (await ask(three, "n1", "/v1/append", both("no_stream")))[0] == 201
    assert (await ask(three, "n2", "/v1/append", both("no_stream")))[0] == 409
    for node_id in three.ids:
        assert (await ask(three, node_id, "/v1/streams/%7Bpair%7D-from"))[1]["current_version"] == 1


async def test_a_token_lets_a_local_read_see_the_write(three: ClusterProcess) -> None:
    for number in range(20):
        path = f"/v1/streams/token-{number}/events"
        _, written = await ask(three, three.ids[number % 3], path, greeting())
        for node_id in three.ids:
            query = f"{path}?consistency=local&token={written['token']}"
            status, page = await ask(three, node_id, query)
            assert (status, page["current_version"]) == (200, 1)


@pytest.mark.parametrize(
    ("path", "body", "status", "error"),
    [
        ("/v1/streams/x/events", b"{not json", 400, "invalid"),
        ("/v1/streams/%20x/events", greeting(), 400, "invalid"),
        ("/v1/streams/x/events", {"expected_version": "some", "events": [{"type": "T"}]}, 400, "invalid"),
        ("/v1/streams/x/events", {"expected_version": -3, "events": [{"type": "T"}]}, 400, "invalid"),
        ("/v1/streams/x/events", {"expected_version": "any", "events": []}, 400, "invalid"),
        ("/v1/streams/x/events", {"events": [{"type": "T" * 200, "data": 1}]}, 400, "invalid"),
        ("/v1/streams/x/events", greeting("x" * 2_000_000), 413, "too_large"),
        ("/v1/partitions/32/events", None, 400, "invalid"),
        ("/v1/streams/never-written/events", None, 404, "not_found"),
        (
            "/v1/append",
            {"streams": [{"stream": s, "events": [{"type": "T", "data": 1}]} for s in ("a", "b", "c")]},
            400,
            "invalid",
        ),
    ],
)
async def test_bad_input_is_refused_and_changes_nothing(
    one: ClusterProcess, path: str, body: Any, status: int, error: str
) -> None:
    answer_status, answer = await ask(one, "n1", path, body)
    assert (answer_status, answer["error"], answer["definite"]) == (status, error, True)
    assert answer["message"]
    for partition in range(32):
        _, page = await ask(one, "n1", f"/v1/partitions/{partition}/events")
        assert page["events"] == []


@pytest.fixture
async def one(clusters: Clusters) -> ClusterProcess:
    return await clusters.start(1, storage={"backend": "memory"})


@pytest.mark.parametrize(("nodes", "each"), [(1, [32]), (2, [16, 16]), (4, [8] * 4), (8, [4] * 8)])
async def test_owners_are_dealt_evenly(clusters: Clusters, nodes: int, each: list[int]) -> None:
    cluster = await clusters.start(nodes)
    for node_id in cluster.ids:

        async def sees_them(node_id: str = node_id) -> bool:
            picture = await cluster.picture(node_id)
            return picture is not None and [len(picture.owned_by(one)) for one in cluster.ids] == each

        await wait_for(cluster, sees_them, f"{node_id} to see {each} partitions with the nodes")


def test_free_ports_are_different_and_free() -> None:
    ports = free_ports(16)
    assert len(set(ports)) == 16
