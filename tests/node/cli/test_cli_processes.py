"""Children are started, hurt, counted and ended; none outlives its parent."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from allsource.config.load import load_settings
from allsource.node.cli.control import adopted
from allsource.node.cli.control.adopted import AdoptedNode, listener, restarter
from allsource.node.cli.control.cluster import write_config
from allsource.node.cli.control.ports import free_ports
from allsource.node.cli.control.processes import (
    PARENT_VARIABLE,
    NodeProcess,
    cpu_seconds,
    die_with_parent,
    kill_all,
    stop_all,
    until,
)
from allsource.node.cli.control.scratch import copy_config

TIMEOUT_S = 60.0
SLEEPER = "import time; print('up', flush=True); time.sleep(100)"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPER}"
PARENT = (
    "import sys; from allsource.node.cli.control.processes import NodeProcess;"
    " child = NodeProcess('n', [sys.executable, '-c', sys.argv[1]], output=1); child.start();"
    " print(child.pid, flush=True); import time; time.sleep(100)"
)
CHILD = f"from allsource.node.cli.control.processes import die_with_parent; die_with_parent(); {SLEEPER}"


async def started(code: str, tmp_path: Path, name: str = "n1") -> NodeProcess:
    """A child that has said `up`."""
    log = tmp_path / f"{name}.log"
    node = NodeProcess(name, [sys.executable, "-c", code], output=log)
    node.start()
    await until(lambda: "up" in log.read_text(), TIMEOUT_S, "the child to speak")
    return node


def state_of(pid: int) -> str:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return stat[stat.rindex(")") + 2]


async def test_a_child_is_killed_reaped_and_started_again(tmp_path: Path) -> None:
    node = await started(SLEEPER, tmp_path)
    assert node.running
    assert node.exit_status is None
    first = node.pid
    kill_all([node])
    assert not node.running
    assert node.exit_status == -signal.SIGKILL
    node.start()
    assert node.running
    assert node.pid != first
    kill_all([node])


async def test_a_paused_child_exists_and_hears_sigterm(tmp_path: Path) -> None:
    node = await started(SLEEPER, tmp_path)
    node.pause()
    await until(lambda: state_of(node.pid) == "T", TIMEOUT_S, "the child to stop")
    assert node.running
    node.resume()
    await until(lambda: state_of(node.pid) != "T", TIMEOUT_S, "the child to go on")
    node.pause()
    assert await stop_all([node], TIMEOUT_S) == []
    assert node.exit_status == -signal.SIGTERM


async def test_who_does_not_stop_in_time_is_killed_and_named(tmp_path: Path) -> None:
    deaf = await started(DEAF, tmp_path, "deaf")
    good = await started(SLEEPER, tmp_path, "good")
    assert await stop_all([deaf, good], 0.3) == ["deaf"]
    assert (deaf.exit_status, good.exit_status) == (-signal.SIGKILL, -signal.SIGTERM)


async def test_a_child_dies_with_a_parent_that_is_killed() -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, CHILD, stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    said = [(await parent.stdout.readline()).decode().strip() for _ in range(2)]
    (child,) = (int(line) for line in said if line != "up")
    assert state_of(child) not in ("", "Z")
    parent.kill()
    await parent.wait()
    await until(lambda: state_of(child) in ("", "Z", "X"), TIMEOUT_S, "the child to die")


def test_a_child_whose_parent_is_gone_already_does_not_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PARENT_VARIABLE, str(os.getpid() + 1))
    done = subprocess.run(
        [sys.executable, "-c", CHILD], env=os.environ, capture_output=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 1
    assert b"is gone" in done.stderr
    assert done.stdout == b""


def test_without_a_parent_that_asks_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PARENT_VARIABLE, raising=False)
    assert not die_with_parent()


def test_cpu_time_grows_with_work() -> None:
    before, begun = cpu_seconds(os.getpid()), time.process_time()
    while time.process_time() - begun < 0.1:
        sum(range(1000))
    spent = cpu_seconds(os.getpid()) - before
    assert 0.05 <= spent < 1.0


async def test_waiting_in_vain_says_for_what() -> None:
    with pytest.raises(TimeoutError, match="for the moon to fall"):
        await until(lambda: False, 0.03, "the moon to fall")


def test_free_ports_are_free_different_and_never_given_to_outgoing_connections() -> None:
    ports = free_ports(20)
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert len(set(ports)) == 20
    assert max(ports) < lowest
    for port in ports:
        with socket.create_server(("127.0.0.1", port)):
            pass


def test_a_config_of_ports_and_directories_of_its_own(tmp_path: Path) -> None:
    config = write_config(tmp_path, ["a", "b"], cluster_name="c", secret="long-enough")
    settings = load_settings(config)
    assert [node.id for node in settings.nodes] == ["a", "b"]
    assert all(node.data_dir.is_relative_to(tmp_path) for node in settings.nodes)
    assert config.stat().st_mode & 0o077 == 0  # the secret is in it


def test_a_copied_config_is_the_same_cluster_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from-a-file-of-its-own\n")
    source = write_config(
        tmp_path,
        ["a", "b", "c"],
        cluster_name="c",
        secret={"file": str(tmp_path / "secret")},
        limits={"queue_capacity": 17},
    )
    there = tmp_path / "there"
    there.mkdir()
    one, two = load_settings(source), load_settings(copy_config(source, there))
    assert (one.cluster_id, one.secret, one.limits) == (two.cluster_id, two.secret, two.limits)
    assert [node.id for node in one.nodes] == [node.id for node in two.nodes]
    assert not {node.port for node in one.nodes} & {node.port for node in two.nodes}
    assert all(node.data_dir.is_relative_to(there) for node in two.nodes)


async def test_a_running_node_is_found_by_its_port_and_hurt_alike(tmp_path: Path) -> None:
    config = write_config(tmp_path, ["a"], cluster_name="c", secret="long-enough")
    settings = load_settings(config).nodes[0]
    with pytest.raises(LookupError, match="is a running here"):
        AdoptedNode(settings, config)
    listening = (
        "import socket, time; s = socket.create_server(('127.0.0.1', "
        f"{settings.port})); print('up', flush=True); time.sleep(100)"
    )
    child = await started(listening, tmp_path)
    node = AdoptedNode(settings, config)
    assert node.pid == child.pid == listener(settings.port)
    node.pause()
    await until(lambda: state_of(child.pid) == "T", TIMEOUT_S, "the child to stop")
    assert node.running
    assert node.cpu_seconds() >= 0.0
    node.resume()
    node.kill()
    node.reap()
    assert not node.running
    kill_all([child])


RESTARTER = """
import subprocess, sys
CHILD = "import socket, time; s = socket.create_server(('127.0.0.1', PORT)); time.sleep(600)"
for _ in range(2):
    child = subprocess.Popen([sys.executable, "-c", CHILD.replace("PORT", sys.argv[-1])])
    child.wait()
    sys.stdin.readline()  # as long as its back-off takes, or a busy machine
"""


async def test_a_node_that_its_launch_starts_again_is_never_started_by_the_drill_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine the launch took longer than the drill's patience: both started the node, and the
    drill's went on running when everything else had ended."""
    config = write_config(tmp_path, ["a"], cluster_name="c", secret="long-enough")
    settings = load_settings(config).nodes[0]
    began: list[object] = []
    looks: list[int] = []

    def command(*asked: object) -> list[str]:
        began.append(asked)
        return [sys.executable, "-c", ""]

    def look(port: int) -> int | None:
        looks.append(port)
        return listener(port)

    with monkeypatch.context() as patch:
        patch.setattr(adopted, "_SUPERVISOR_S", 0.0)
        patch.setattr(adopted, "node_command", command)
        patch.setattr(adopted, "listener", look)
        launch = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", RESTARTER, "launch", "--restart", str(settings.port)),
            stdin=subprocess.PIPE,
        )
        assert launch.stdin is not None
        try:
            await until(lambda: listener(settings.port) is not None, TIMEOUT_S, "the node to listen")
            node = AdoptedNode(settings, config)
            assert restarter(node.pid) == launch.pid
            killed = node.pid
            node.kill()
            node.reap()
            looked = len(looks)
            starting = asyncio.create_task(asyncio.to_thread(node.start))
            await until(lambda: len(looks) > looked + 3, TIMEOUT_S, "the drill to wait")
            launch.stdin.write(b"now\n")
            await starting
            assert node.pid == listener(settings.port) != killed
            assert began == []
        finally:
            launch.kill()
            await launch.wait()
            if (pid := listener(settings.port)) is not None:
                os.kill(pid, signal.SIGKILL)
