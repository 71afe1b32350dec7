"""The `allsource` command as a user meets it: launched, asked, interrupted, and never a traceback."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from allsource.config.load import load_settings
from allsource.node.cli.control.adopted import listener
from allsource.node.cli.control.cluster import ClusterProcess
from allsource.node.cli.control.processes import until
from allsource.storage.model.partition import partition_of
from integration.harness import PATIENCE_S, Clusters, ask, greeting

ALLSOURCE = [sys.executable, "-m", "allsource.node.cli"]


def allsource(
    *arguments: str | Path, stdin: bytes = b"", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    done = subprocess.run(
        [*ALLSOURCE, *map(str, arguments)],
        input=stdin,
        capture_output=True,
        timeout=280,
        env={**os.environ, **environment},
        check=False,
    )
    out, err = done.stdout.decode(), done.stderr.decode()
    assert "Traceback" not in out + err, out + err
    return subprocess.CompletedProcess(done.args, done.returncode, out, err)


class Launch:
    """A running `allsource launch --json`, and what it has said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.happened: list[dict[str, Any]] = []
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.happened.append(json.loads(line))

    def told(self, happened: str, node: str | None = None) -> list[dict[str, Any]]:
        """What it said of this kind, and of this node."""
        return [
            one for one in self.happened if one["happened"] == happened and node in (None, one.get("node"))
        ]

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for something that it says or does."""
        await until(condition, PATIENCE_S, f"{what}; it said {self.happened[-3:]}")

    async def ended(self) -> int:
        """Its exit status, once all that it said was read."""
        async with asyncio.timeout(PATIENCE_S):
            await self._reading
            return await self.process.wait()

    def pids(self) -> list[int]:
        """The pids of every child that was ever started."""
        return [one["pid"] for one in self.told("started")]


@contextlib.asynccontextmanager
async def launched(config: Path, *options: str) -> AsyncIterator[Launch]:
    process = await asyncio.create_subprocess_exec(
        *ALLSOURCE,
        "launch",
        str(config),
        "--json",
        *options,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    launch = Launch(process)
    try:
        yield launch
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await launch.ended()
        await launch.until(lambda: not any(map(exists, launch.pids())), "all children to be gone")


def exists(pid: int) -> bool:
    """Whether a process lives (one that waits to be reaped by init does not)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat[stat.rindex(")") + 2] not in "ZX"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_launch_starts_all_and_a_signal_stops_all_in_order(
    clusters: Clusters, number: signal.Signals
) -> None:
    async with launched(clusters.config(3)) as launch:
        await launch.until(lambda: bool(launch.told("ready")), "the cluster to be ready")
        assert len(launch.pids()) == 3
        launch.process.send_signal(number)
        assert await launch.ended() == 0
        assert [one["status"] for one in launch.told("ended")] == []  # nobody ended by itself
        assert [one["line"].split()[3] for one in launch.told("said") if " stopped " in one["line"]]
        assert not any(map(exists, launch.pids()))


async def test_children_die_with_a_launch_that_is_killed(clusters: Clusters) -> None:
    async with launched(clusters.config(2)) as launch:
        await launch.until(lambda: bool(launch.told("ready")), "the cluster to be ready")
        assert all(map(exists, launch.pids()))
        launch.process.kill()
        await launch.until(lambda: not any(map(exists, launch.pids())), "the children to be gone")


async def test_a_dead_child_is_shown_and_with_restart_started_again(clusters: Clusters) -> None:
    async with launched(clusters.config(3), "--restart") as launch:
        await launch.until(lambda: bool(launch.told("ready")), "the cluster to be ready")
        os.kill(launch.told("started", "n2")[0]["pid"], signal.SIGKILL)
        await launch.until(lambda: len(launch.told("started", "n2")) == 2, "n2 to be started again")
        (death,) = launch.told("ended", "n2")
        assert death["status"] == -signal.SIGKILL
        assert death["again_in_s"] > 0
        assert len(launch.told("started")) == 4


async def test_without_restart_the_others_go_on(clusters: Clusters) -> None:
    config = clusters.config(3)
    cluster = await clusters.adopt(config)
    async with launched(config) as launch:
        await launch.until(lambda: bool(launch.told("ready")), "the cluster to be ready")
        os.kill(launch.told("started", "n2")[0]["pid"], signal.SIGKILL)
        await launch.until(lambda: bool(launch.told("ended", "n2")), "the death to be told")
        assert launch.told("ended", "n2")[0]["again_in_s"] is None
        assert (await ask(cluster, "n1", "/v1/streams/s/events", greeting()))[0] == 201


async def test_a_launch_of_which_no_node_can_start_fails_and_says_why(clusters: Clusters) -> None:
    config = clusters.config(2)
    for directory in ("n1", "n2"):
        (config.parent / directory).write_text("not a directory")
    done = await asyncio.to_thread(allsource, "launch", config)
    assert done.returncode == 1
    assert done.stderr.count("ended with status 73") == 2
    told = (done.stdout + done.stderr).count("make it a directory that this user may read and write")
    assert told == 2, "of each node once"
    assert "no node could be started" in done.stderr.splitlines()[-1]


async def test_a_second_launch_of_a_file_does_not_take_the_first_ones_nodes_for_its_own(
    clusters: Clusters,
) -> None:
    cluster = await clusters.start(2)
    done = await asyncio.to_thread(allsource, "launch", cluster.config)
    assert done.returncode == 1
    assert "is ready" not in done.stdout
    assert (done.stdout + done.stderr).count("is in use by the process") == 2
    assert "no node could be started" in done.stderr.splitlines()[-1]
    await cluster.ready()


@pytest.fixture
async def one(clusters: Clusters) -> ClusterProcess:
    return await clusters.start(1)


async def test_append_read_and_status_in_text_and_json(one: ClusterProcess) -> None:
    def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        command, *rest = arguments
        return allsource(command, "--config", one.config, *rest, **options)

    first = run("append", "s", '{"n": 1}', "--type", "Counted", "--expected-version", "no_stream", "--json")
    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout)["last_version"] == 1

    lines = b'{"type": "Counted", "data": {"n": 2}}\n{"type": "Counted", "data": {"n": 3}}\n'
    many = run("append", "s", "-", "--lines", "--expected-version", "1", stdin=lines)
    assert many.stdout.startswith("s: versions 2-3, partition ")

    conflict = run("append", "s", "4", "--expected-version", "1")
    assert (conflict.returncode, conflict.stdout) == (1, "")
    assert "expected 1, got 3" in conflict.stderr
    assert len(conflict.stderr.splitlines()) == 1

    read = run("read", "s", "--json")
    events = [json.loads(line) for line in read.stdout.splitlines()]
    assert [(event["version"], event["data"]) for event in events] == [(n, {"n": n}) for n in (1, 2, 3)]
    partition = str(events[0]["partition"])
    same = run("read", "--partition", partition, "--json")
    assert same.stdout == read.stdout
    newest = run("read", "s", "--backward", "--limit", "1")
    assert newest.stdout.split("\t")[0] == "3"
    assert newest.stdout.endswith('\tCounted\t{"n":3}\n')
    by_position = run("read", "--partition", partition, "--limit", "1")
    assert by_position.stdout.startswith("1\ts\t1\t")

    assert run("append", "a{t}", "1", "--type", "A").returncode == 0
    assert run("append", "b{t}", "2", "--type", "B").returncode == 0
    by_tag = run("read", "--tag", "t", "--backward")
    assert [line.split("\t")[:3] for line in by_tag.stdout.splitlines()] == [
        ["2", "b{t}", "1"],
        ["1", "a{t}", "1"],
    ]
    of_type = json.loads(run("read", "--tag", "t", "--type", "B", "--json").stdout)
    assert (of_type["tag"], of_type["tag_number"], of_type["data"]) == ("t", 2, 2)
    own = run("append", "$all", "1")
    assert own.returncode == 1
    assert "store's own" in own.stderr

    missing = run("read", "never-written")
    assert (missing.returncode, missing.stdout) == (1, "")
    assert "[not_found]" in missing.stderr

    status = run("status")
    assert status.returncode == 0
    assert "durability fsync" in status.stdout
    view = json.loads(run("status", "--json").stdout)
    assert [node["id"] for node in view["nodes"]] == ["n1"]


async def test_data_is_an_argument_or_piped_in_and_never_made_up(one: ClusterProcess) -> None:
    def append(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return allsource("append", "--config", one.config, "s", *arguments, **options)

    nothing = append()
    assert (nothing.returncode, nothing.stdout) == (2, "")
    assert "append what?" in nothing.stderr
    exact = '{"n": 123456789012345678901234567890.1234, "again": 1.0}'
    for number, done in enumerate(
        (
            append(exact),
            append(stdin=exact.encode()),
            append("-", stdin=b"\n" + exact.encode() + b"\n\n"),
            append("--lines", stdin=f'{{"data": {exact}, "type": "T"}}\n\n'.encode()),
        ),
        1,
    ):
        assert done.stdout.startswith(f"s: version {number}, "), done.stderr
    read = allsource("read", "--config", one.config, "s")
    assert [line.split("\t")[3] for line in read.stdout.splitlines()] == [exact.replace(" ", "")] * 4
    wrong = append('{"total" 42}', "--id", "0b6f5c1e-3d7a-4f7e-9a51-0c7d1f0a2b3c")
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert 'line 1, column 10: {"total"  -->42}' in wrong.stderr
    for arguments, stdin, says in (
        (["--lines"], b'{"type": "T", "data": 1}\n{"type": "T"}', "line 2"),
        (["--lines"], b'{"type": "T", "data": 1, "id": "x"}', "not a UUID"),
        (["--lines"], b"[1]", "not a JSON object"),
        (["--lines", "--type", "X"], b"{}", "each line says its own type"),
        (["--metadata", "{"], b"1", "--metadata is not JSON"),
        (["NaN"], b"", "NaN"),
        (["1", "--expected-version", "9" * 30], b"", "expected_version must be"),
    ):
        done = append(*arguments, stdin=stdin)
        assert done.returncode in (1, 2)
        assert says in done.stderr, done.stderr
    assert len(allsource("read", "--config", one.config, "s").stdout.splitlines()) == 4
    binary = append("--binary", stdin=b"\xff\x00\n")
    assert binary.returncode == 0, binary.stderr
    repeated = [append("1", "--id", "0b6f5c1e-3d7a-4f7e-9a51-0c7d1f0a2b3c").stdout for _ in range(2)]
    assert ["appended before" in line for line in repeated] == [False, True]


async def test_what_others_stored_does_nothing_to_a_terminal(one: ClusterProcess) -> None:
    evil = "\x1b]0;owned\x07\x9b2J\u202e\u200b\x7f"
    body = {"events": [{"type": "T\u202e\u200b", "data": evil}]}
    for data in (body, {"events": [{"type": "T", "data": "\ud800"}]}):
        assert (await ask(one, "n1", "/v1/streams/a\u202eb/events", data))[0] == 201
    for arguments in (["a\u202eb"], ["--partition", str(partition_of("a\u202eb"))]):
        shown = allsource("read", "--config", one.config, *arguments)
        assert shown.returncode == 0, shown.stderr
        assert shown.stdout.replace("\n", "").replace("\t", "").isprintable()
        assert "\\u001b]0;owned\\u0007\\u009b2J\\u202e\\u200b\\u007f" in shown.stdout
        assert "\\ud800" in shown.stdout
    exact = allsource("read", "--config", one.config, "a\u202eb", "--json")
    assert exact.stdout.isascii()
    assert [json.loads(line)["data"] for line in exact.stdout.splitlines()] == [evil, "\ud800"]
    in_ascii = allsource("read", "--config", one.config, "a\u202eb", PYTHONIOENCODING="ascii")
    assert (in_ascii.returncode, in_ascii.stderr) == (0, "")
    missing = allsource("read", "--config", one.config, "x\u202ey")
    assert missing.returncode == 1
    assert missing.stderr.replace("\n", "").isprintable()


async def test_a_cluster_can_be_named_by_a_node_and_the_secret(one: ClusterProcess) -> None:
    address = one.addresses[0]
    by_node = allsource("status", "--node", address, "--json", ALLSOURCE_SECRET=one.settings.client_secret)
    assert json.loads(by_node.stdout)["node"] == "n1"
    wrong = allsource("status", "--node", address, ALLSOURCE_SECRET="another-secret")
    assert (wrong.returncode, len(wrong.stderr.splitlines())) == (1, 1)
    assert "secret" in wrong.stderr
    without = allsource("status", "--node", address)
    assert without.returncode == 2
    assert "--secret-file" in without.stderr


async def test_a_reader_that_goes_away_is_no_error_worth_a_word(one: ClusterProcess) -> None:
    lines = b"\n".join(json.dumps({"type": "T", "data": "x" * 200}).encode() for _ in range(5_000))
    assert allsource("append", "--config", one.config, "s", "-", "--lines", stdin=lines).returncode == 0
    command = " ".join([*ALLSOURCE, "read", "--config", str(one.config), "s"])
    shell = f"set -o pipefail; {command} | head -n 1"
    done = await asyncio.to_thread(
        subprocess.run, ["bash", "-c", shell], capture_output=True, timeout=280, check=False
    )
    assert (done.returncode, done.stderr) == (1, b"")
    assert done.stdout.startswith(b"1\t")


async def test_commands_that_find_no_cluster_say_so_in_a_line(clusters: Clusters) -> None:
    config = clusters.config(1)
    done = allsource("status", "--config", config, "--timeout", "0.5")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "no node could be reached" in done.stderr


@pytest.mark.parametrize("injury", ["kill-node", "stop-node"])
async def test_the_drill_on_rocksdb_leaves_nothing_behind(
    clusters: Clusters, tmp_path: Path, injury: str
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    done = await asyncio.to_thread(
        allsource,
        *("drill", injury, "--config", clusters.config(3), "--rounds", "2", "--json"),
        TMPDIR=str(place),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert (report["ok"], report["faults"], report["storage"]) == (True, [], "rocksdb")
    assert len(report["rounds"]) == 2
    assert report["writes"]["acknowledged"] > 100
    assert report["remark"] is None
    assert list(place.iterdir()) == []


async def test_the_drill_takes_a_running_cluster_and_restarts_what_it_killed(clusters: Clusters) -> None:
    config = clusters.config(3)
    async with launched(config, "--restart") as launch:
        await launch.until(lambda: bool(launch.told("ready")), "the cluster to be ready")
        done = await asyncio.to_thread(
            allsource, "drill", "kill-node", "--config", config, "--running", "--rounds", "1", "--json"
        )
        assert done.returncode == 0, done.stdout + done.stderr
        report = json.loads(done.stdout)
        assert report["ok"] is True
        assert report["faults"] == []
        assert report["writes"]["acknowledged"] > 100
        (victim,) = report["rounds"][0]["victims"]
        await launch.until(lambda: len(launch.told("started", victim)) == 2, "the victim's second start")
        assert len(launch.told("ended", victim)) == 1
        assert listener(load_settings(config).node(victim).port) == launch.told("started", victim)[1]["pid"]


async def test_a_drill_that_no_cluster_could_survive_is_refused(clusters: Clusters) -> None:
    done = allsource("drill", "kill-node", "--config", clusters.config(3), "--kill", "2")
    assert done.returncode == 2
    assert "survives the loss of 1, not of 2" in done.stderr


async def test_a_benchmark_prints_every_figure(clusters: Clusters) -> None:
    done = await asyncio.to_thread(
        allsource,
        *("bench", "--config", clusters.config(3), "--seconds", "2", "--json"),
        *("--workload", "1-writer", "--workload", "64-writers", "--workload", "read-64"),
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [one["workload"] for one in found["results"]] == ["1-writer", "64-writers", "read-64"]
    for one in found["results"]:
        assert one["per_second"] > 0
        assert 0 < one["p50_ms"] <= one["p99_ms"] <= one["max_ms"]
        assert one["server_cpu_s_per_1000"] > 0
        assert one["client_cpu_s_per_1000"] > 0
    assert "durability fsync" in found["facts"]["cluster"]


async def test_a_benchmark_reads_from_replicas_what_they_have(clusters: Clusters) -> None:
    done = await asyncio.to_thread(
        allsource,
        *("bench", "--config", clusters.config(3), "--seconds", "2", "--workload", "read-1-local"),
    )
    assert done.returncode == 0, done.stderr


def test_the_listener_of_a_port_is_found() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert listener(port) == os.getpid()
    assert listener(port) is None
