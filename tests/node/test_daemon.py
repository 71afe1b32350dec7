"""Real nodes on loopback: boot, first start, service over both doors, and every refusal to start."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog
from structlog.testing import LogCapture

from allsource.client import Client
from allsource.config.schema import NodeSettings, Settings, StorageSettings
from allsource.node.daemon import EXIT_LISTEN, EXIT_OK, EXIT_SETTINGS, Node, run_node, start_node
from allsource.node.member.ending import EXIT_STORAGE
from allsource.storage.model.errors import AllsourceError, NoOwner, StorageFault
from allsource.storage.model.events import NewEvent
from tests.cluster.live import Route
from tests.node.members import settings_for, streams_in, until

DEADLINE_S = 60.0
"""Of the wall clock, for three whole nodes in this process on a busy machine."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def settings_in(directory: Path, nodes: int, **others: Any) -> Settings:
    return replace(
        settings_for(nodes),
        storage=StorageSettings(backend="rocksdb", write_buffer_bytes=1 << 20),
        nodes=tuple(
            NodeSettings(f"n{i}", "127.0.0.1", free_port(), free_port(), directory / f"n{i}")
            for i in range(1, nodes + 1)
        ),
        **others,
    )


class Nodes:
    """Nodes that run in this process."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.running: dict[str, Node] = {}

    async def start(self, *node_ids: str) -> None:
        for node_id in node_ids or [node.id for node in self.settings.nodes]:
            self.running[node_id] = await start_node(self.settings, node_id, structlog.get_logger())

    async def stop(self, *node_ids: str) -> None:
        for node_id in node_ids or list(self.running):
            await self.running.pop(node_id).stop()

    async def http(self, node_id: str, path: str, body: Any = None) -> tuple[int, Any]:
        node = self.settings.node(node_id)
        url = f"http://127.0.0.1:{node.http_port}{path}"
        async with (
            aiohttp.ClientSession() as session,
            session.request("POST" if body else "GET", url, json=body) as answer,
        ):
            return answer.status, await answer.json()

    async def ready(self, *node_ids: str) -> None:
        for node_id in node_ids or list(self.running):
            end = time.monotonic() + DEADLINE_S
            while (await self.http(node_id, "/health/ready"))[0] != 200:
                assert time.monotonic() < end, await self.http(node_id, "/health/ready")
                await asyncio.sleep(0.01)

    async def shows(self, node_id: str, condition: Callable[[dict[str, Any]], bool]) -> None:
        """Wait until the node's picture of the cluster meets the condition."""
        end = time.monotonic() + DEADLINE_S
        while not condition(view := (await self.http(node_id, "/v1/cluster"))[1]):
            assert time.monotonic() < end, view
            await asyncio.sleep(0.01)

    def client(self, *node_ids: str) -> Client:
        chosen = [self.settings.node(node_id) for node_id in node_ids] or list(self.settings.nodes)
        return Client.connect(
            [f"{node.host}:{node.port}" for node in chosen],
            secret=self.settings.client_secret,
            timeout_s=10,
        )


@pytest.fixture(autouse=True)
def _quiet() -> None:
    """These nodes log to nowhere: pytest closes what it captures before the last of them is gone."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())


@pytest.fixture
async def three(tmp_path: Path) -> AsyncIterator[Nodes]:
    nodes = Nodes(settings_in(tmp_path, 3))
    await nodes.start()
    await nodes.ready()
    yield nodes
    await nodes.stop()


async def test_three_nodes_serve_both_doors(three: Nodes) -> None:
    status, answer = await three.http(
        "n2",
        "/v1/streams/a/events",
        {"expected_version": "no_stream", "events": [{"type": "T", "data": 1}]},
    )
    assert (status, answer["first_version"]) == (201, 1)
    async with three.client() as client:
        result = await client.append("a", [NewEvent.json("T", 2)], expected_version=1)
        assert result.streams[0][2] == 2
        page = await client.read_stream("a")
        assert [event.json() for event in page.events] == [1, 2]
    await three.shows("n3", lambda view: [node["state"] for node in view["nodes"]] == ["up"] * 3)
    await three.shows("n3", lambda view: _owned(view) == [3, 3, 2])


def _owned(view: dict[str, Any]) -> list[int]:
    owners = [row["owner"] for row in view["partitions"]]
    return [owners.count(node) for node in ("n1", "n2", "n3")]


async def test_everything_acknowledged_is_there_after_a_restart(three: Nodes) -> None:
    async with three.client() as client:
        for number in range(30):
            await client.append(f"s-{number}", [NewEvent.json("T", number)])
    await three.stop()
    await three.start()
    await three.ready()
    async with three.client() as client:
        for number in range(30):
            page = await client.read_stream(f"s-{number}")
            assert [event.json() for event in page.events] == [number]
    await three.shows("n1", lambda view: [node["incarnation"] for node in view["nodes"]] == [2] * 3)


async def test_a_node_goes_and_comes_back(three: Nodes) -> None:
    async with three.client("n1", "n2") as client:
        await three.running["n3"].leave(2.0)
        await three.stop("n3")
        for number in range(20):
            await client.append(f"s-{number}", [NewEvent.json("T", number)])
        await three.start("n3")
        await three.ready("n3")
        for number in range(20):
            result = await client.append(f"s-{number}", [NewEvent.json("T", number)])
            assert result.streams[0][2] == 2


async def test_a_data_connection_that_hangs_beside_living_beats_is_dialled_afresh(tmp_path: Path) -> None:
    """n1 reaches n2 and n3 over routes: its data connections fall silent for ever, and none ends."""
    settings = settings_in(tmp_path, 3)
    routes = {node.id: await Route(node.port).open() for node in settings.nodes[1:]}
    nodes = Nodes(settings)
    detours = tuple(
        replace(node, port=routes[node.id].port) if node.id in routes else node for node in settings.nodes
    )
    try:
        await nodes.start("n2", "n3")
        nodes.settings = replace(settings, nodes=detours)
        await nodes.start("n1")
        await nodes.ready()
        led_by_n2 = streams_in(1, 1)[0]
        url = f"/v1/streams/{led_by_n2}/events?timeout=8s"
        body = {"expected_version": "any", "events": [{"type": "T", "data": 1}]}
        assert (await nodes.http("n1", url, body))[0] == 201
        for route in routes.values():
            route.cut("data")
        assert (await nodes.http("n1", url, body))[0] == 201
        view = (await nodes.http("n1", "/v1/cluster"))[1]
        assert [node["state"] for node in view["nodes"]] == ["up"] * 3
    finally:
        await nodes.stop()
        for route in routes.values():
            await route.close()


async def test_a_node_that_stops_does_not_suspect_those_on_whom_it_hangs_up(tmp_path: Path) -> None:
    nodes, heard = Nodes(settings_in(tmp_path, 3, suspicion_timeout_ms=5000)), LogCapture()
    await nodes.start("n2", "n3")
    log = structlog.wrap_logger(None, processors=[heard])
    nodes.running["n1"] = await start_node(nodes.settings, "n1", log)
    await nodes.ready()
    await nodes.stop("n1")
    await nodes.stop()
    assert heard.entries
    assert not [entry for entry in heard.entries if entry["event"] == "peer is suspect"]


async def test_a_first_start_waits_for_all_members(tmp_path: Path) -> None:
    nodes = Nodes(settings_in(tmp_path, 3))
    await nodes.start("n1", "n2")
    try:
        first = nodes.running["n1"]
        await until(lambda: ["n3" in why for why in first.parts.part.waits_for()] == [True])
        status, answer = await nodes.http("n1", "/health/ready")
        assert (status, "n3" in answer["message"]) == (503, True)
        body = {"expected_version": "any", "events": [{"type": "T", "data": 1}]}
        status, answer = await nodes.http("n1", "/v1/streams/a/events", body)
        assert (status, answer["error"], answer["definite"]) == (503, NoOwner.code, True)
        assert (await nodes.http("n1", "/v1/cluster"))[0] == 200
        await nodes.start("n3")
        await nodes.ready()
        assert (await nodes.http("n1", "/v1/streams/a/events", body))[0] == 201
    finally:
        await nodes.stop()


async def test_a_wiped_node_takes_no_part(three: Nodes, tmp_path: Path) -> None:
    await three.stop("n3")
    wiped = replace(
        three.settings,
        nodes=tuple(
            replace(node, data_dir=tmp_path / "wiped") if node.id == "n3" else node
            for node in three.settings.nodes
        ),
    )
    newcomer = three.running["n3"] = await start_node(wiped, "n3", structlog.get_logger())
    part = newcomer.parts.part
    await until(lambda: {"n1", "n2"} <= part.complaints.keys())
    assert "identity_changed" in part.complaints["n1"]
    assert part.member is None
    status, answer = await three.http("n3", "/health/ready")
    assert status == 503
    assert "no agreement with n1: identity_changed" in answer["message"]
    assert (await three.http("n3", "/v1/cluster"))[1]["durability"] == "fsync"
    body = {"expected_version": "any", "events": [{"type": "T", "data": 1}]}
    assert (await three.http("n1", "/v1/streams/a/events", body))[0] == 201


async def test_another_secret_is_not_let_in(three: Nodes, tmp_path: Path) -> None:
    await three.stop("n3")
    settings = replace(three.settings, secret="another secret")
    stranger = three.running["n3"] = await start_node(settings, "n3", structlog.get_logger())
    complaints = stranger.parts.part.complaints
    await until(lambda: {"n1", "n2"} <= complaints.keys())
    assert "wrong_secret" in complaints["n1"]


# -- refusals to start


async def refused(settings: Settings, node_id: str = "n1") -> AllsourceError:
    with pytest.raises(AllsourceError) as caught:
        await start_node(settings, node_id, structlog.get_logger())
    return caught.value


@pytest.mark.parametrize("which", ["port", "http_port"])
async def test_a_port_in_use(tmp_path: Path, which: str) -> None:
    settings = settings_in(tmp_path, 1)
    port = getattr(settings.nodes[0], which)
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", port))
        holder.listen()
        error = await refused(settings)
    assert str(port) in error.message
    assert "in use" in error.message
    await refused_to_be_refused(settings)


async def refused_to_be_refused(settings: Settings) -> None:
    """Nothing was left behind by the failed start: the next one succeeds."""
    node = await start_node(settings, "n1", structlog.get_logger())
    await node.stop()


async def test_a_directory_in_use(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, 1)
    node = await start_node(settings, "n1", structlog.get_logger())
    other_ports = replace(settings.nodes[0], port=free_port(), http_port=free_port())
    error = await refused(replace(settings, nodes=(other_ports,)))
    await node.stop()
    assert isinstance(error, StorageFault)
    assert str(os.getpid()) in error.message


async def test_a_changed_membership(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, 1)
    node = await start_node(settings, "n1", structlog.get_logger())
    await node.stop()
    grown = settings_in(tmp_path, 2)
    error = await refused(replace(grown, replication_factor=1))
    assert isinstance(error, StorageFault)
    assert "members" in error.message


def test_a_node_that_does_not_exist(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_node(settings_in(tmp_path, 1), "n9") == EXIT_SETTINGS
    assert "n9" in capsys.readouterr().err


def test_a_foreign_directory_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = settings_in(tmp_path, 1)
    settings.nodes[0].data_dir.mkdir()
    (settings.nodes[0].data_dir / "thesis.txt").write_text("not yours")
    assert run_node(settings, "n1") == EXIT_STORAGE
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


RUN_WITHOUT_ROOM = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
from allsource.node.cli import main
main()
"""


def test_a_start_without_room_is_one_line_and_its_own_status(tmp_path: Path) -> None:
    """No file may grow at all, which is as good as a full disk."""
    config = tmp_path / "alone.yaml"
    text = CONFIG.format(port=free_port(), http_port=free_port(), data_dir=tmp_path / "data")
    config.write_text(text)
    config.chmod(0o600)
    command = [sys.executable, "-c", RUN_WITHOUT_ROOM, "node", str(config), "--id", "n1"]
    # scripts/test --coverage would have it write a file too.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert ran.returncode == EXIT_STORAGE, ran.stderr
    assert [line for line in ran.stderr.splitlines() if "the disk is full" in line]
    assert "Errno" not in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_taken_port_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = settings_in(tmp_path, 1)
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", settings.nodes[0].port))
        holder.listen()
        assert run_node(settings, "n1") == EXIT_LISTEN
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


# -- signals

CONFIG = """\
cluster_name: alone
secret: only for this test
nodes:
  - {{id: n1, host: 127.0.0.1, port: {port}, http_port: {http_port}, data_dir: "{data_dir}"}}
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_a_node_in_order(tmp_path: Path, number: signal.Signals) -> None:
    http_port = free_port()
    config = tmp_path / "alone.yaml"
    config.write_text(CONFIG.format(port=free_port(), http_port=http_port, data_dir="data"))
    command = [sys.executable, "-m", "allsource.node.cli", "node", str(config), "--id", "n1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    begun = []
    config.chmod(0o644)
    try:
        assert process.stderr is not None
        for line in process.stderr:
            begun.append(line)
            if "leads" in line:
                break
        process.send_signal(number)
        rest = process.stderr.read()
        assert process.wait(10) == EXIT_OK
        assert "stopped" in rest
        assert str(tmp_path / "data") in "".join(begun), "where its data is: from the file's folder"
        assert f"chmod 600 {config}" in "".join(begun)
        made = [tmp_path / "data", *(tmp_path / "data").rglob("*")]
        assert len(made) > 5
        assert [path for path in made if path.stat().st_mode & 0o077] == [], "made for its own user alone"
        assert "Traceback" not in rest
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


async def test_a_directory_that_others_can_enter_is_warned_of(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, 1)
    settings.nodes[0].data_dir.mkdir()
    settings.nodes[0].data_dir.chmod(0o755)
    with structlog.testing.capture_logs() as logs:
        node = await start_node(settings, "n1", structlog.get_logger())
        await node.stop()
    (warning,) = [one for one in logs if one["log_level"] == "warning"]
    assert warning["run"] == f"chmod -R go-rwx {settings.nodes[0].data_dir}"
