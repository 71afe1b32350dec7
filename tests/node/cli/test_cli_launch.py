"""The launch's supervisor with children that are small scripts, and what its displays show."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from aiohttp import web

from allsource.config.load import load_settings
from allsource.config.schema import StorageSettings
from allsource.node.cli.control.processes import NodeProcess, until
from allsource.node.cli.launch import supervisor as supervising
from allsource.node.cli.launch.lines import JsonDisplay, PlainDisplay, how_it_ended, nobody_left, welcome
from allsource.node.cli.launch.overview import ChildState
from allsource.node.cli.launch.supervisor import FAILURES_MAX, Child, Supervisor
from allsource.node.cli.launch.watch import watch
from allsource.node.cli.targets import DEFAULT_CONFIG

CONFIG = Path(__file__).parents[3] / DEFAULT_CONFIG
TIMEOUT_S = 60.0

GOOD = "import time; print('up', flush=True); time.sleep(100)"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {GOOD}"
BROKEN = "import sys; print('[info ] trying'); print('allsource: n1: the port is taken'); sys.exit(69)"


@dataclass
class Witness:
    """A display that remembers."""

    seen: list[tuple[object, ...]] = field(default_factory=list)

    def started(self, child: Child) -> None:
        self.seen.append(("started", child.id))

    def said(self, child: Child, line: str) -> None:
        self.seen.append(("said", child.id, line))

    def ended(self, child: Child, again_in_s: float | None) -> None:
        self.seen.append(("ended", child.id, child.exit_status, again_in_s))

    def ready(self, seconds: float) -> None:
        self.seen.append(("ready",))

    def stopping(self) -> None:
        self.seen.append(("stopping",))


def child(code: str, name: str = "n1") -> Child:
    node = NodeProcess(name, [sys.executable, "-c", code], output=subprocess.PIPE)
    return Child(node, "127.0.0.1:7101", "http://127.0.0.1:8101")


async def while_running(
    supervisor: Supervisor, witness: Witness, seen: list[tuple[object, ...]], then: Callable[[], None]
) -> int:
    """Run it until all of this was seen, do something then, and return its status."""
    running = asyncio.create_task(supervisor.run())
    for one in seen:
        await until(lambda one=one: one in witness.seen or running.done(), TIMEOUT_S, f"not seen: {one}")
    then()
    async with asyncio.timeout(TIMEOUT_S):
        return await running


async def test_what_children_say_is_passed_on_and_stop_ends_them_in_order() -> None:
    witness, children = Witness(), [child(GOOD, "n1"), child(GOOD, "n2")]
    supervisor = Supervisor(children, witness, restart=False)
    both = [("said", "n1", "up"), ("said", "n2", "up")]
    assert await while_running(supervisor, witness, both, supervisor.stop) == 0
    assert witness.seen[-1] == ("stopping",)
    assert [one.exit_status for one in children] == [-15, -15]
    assert not any(one.is_up for one in children)


async def test_a_second_stop_waits_for_nobody() -> None:
    witness, deaf = Witness(), child(DEAF)
    supervisor = Supervisor([deaf], witness, restart=False)

    def stop_twice() -> None:
        supervisor.stop()
        supervisor.stop()

    assert await while_running(supervisor, witness, [("said", "n1", "up")], stop_twice) == 0
    assert deaf.exit_status == -9


async def test_when_no_node_can_start_the_launch_is_over_and_tells_why() -> None:
    witness, children = Witness(), [child(BROKEN, "n1"), child(BROKEN, "n2")]
    async with asyncio.timeout(TIMEOUT_S):
        assert await Supervisor(children, witness, restart=False).run() == 1
    assert ("ended", "n1", 69, None) in witness.seen
    assert ("ended", "n2", 69, None) in witness.seen
    assert children[0].last_complaint == "allsource: n1: the port is taken"
    assert nobody_left(children) == "no node could be started"


async def test_a_child_that_always_fails_is_given_up_after_growing_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was said to be started "again in 0.5 s", and then the launch was over."""
    monkeypatch.setattr(supervising, "_BACKOFF_FIRST_S", 0.01)
    monkeypatch.setattr(supervising, "_BACKOFF_MAX_S", 0.02)
    witness, broken = Witness(), child(BROKEN)
    async with asyncio.timeout(TIMEOUT_S):
        assert await Supervisor([broken], witness, restart=True).run() == 1
    waits = [one[3] for one in witness.seen if one[0] == "ended"]
    assert waits == [0.01, 0.02, 0.02, 0.02, None]
    assert (broken.starts, broken.is_given_up) == (5, True)


def test_who_was_killed_did_not_fail() -> None:
    one = child(GOOD)
    for status, lived_s, failures in (
        (69, 1.0, 1),
        (70, 1.0, 2),
        (-9, 1.0, 0),
        (70, 1.0, 1),
        (70, 31.0, 0),
    ):
        one.exit_status = status
        one.has_ended(lived_s)
        assert one.failures == failures


async def test_a_child_that_is_killed_is_started_again_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervising, "_BACKOFF_FIRST_S", 0.01)
    monkeypatch.setattr(supervising, "_BACKOFF_MAX_S", 0.02)
    witness, killed = Witness(), child("import os; os.kill(os.getpid(), 9)")
    supervisor = Supervisor([killed], witness, restart=True)

    def more_than_failures_are_forgiven() -> bool:
        return len([one for one in witness.seen if one[0] == "ended"]) > FAILURES_MAX

    running = asyncio.create_task(supervisor.run())
    await until(more_than_failures_are_forgiven, TIMEOUT_S, "many deaths")
    supervisor.stop()
    async with asyncio.timeout(TIMEOUT_S):
        assert await running == 0
    waits = [one[3] for one in witness.seen if one[0] == "ended"]
    assert waits[:3] == [0.01, 0.02, 0.02]
    assert None not in waits


async def test_others_go_on_when_one_ends_and_is_not_restarted() -> None:
    witness, children = Witness(), [child(BROKEN, "n1"), child(GOOD, "n2")]
    supervisor = Supervisor(children, witness, restart=False)
    alive: list[bool] = []

    def stop() -> None:
        alive.append(children[1].is_up)
        supervisor.stop()

    assert await while_running(supervisor, witness, [("ended", "n1", 69, None)], stop) == 0
    assert alive == [True]


async def test_complaints_are_kept_and_endless_lines_cut() -> None:
    code = (
        "print('2026-01-01T00:00:00Z [warning  ] disk is slow'); print('[info ] fine');"
        "print('x' * 200_000, flush=True); print('last')"
    )
    witness, talker = Witness(), child(code)
    async with asyncio.timeout(TIMEOUT_S):
        await Supervisor([talker], witness, restart=False).run()
    lines = [one[2] for one in witness.seen if one[0] == "said"]
    assert lines[:2] == ["2026-01-01T00:00:00Z [warning  ] disk is slow", "[info ] fine"]
    assert "".join(map(str, lines[2:-1])) == "x" * 200_000
    assert lines[-1] == "last"
    assert talker.last_complaint == "last"  # it ended by itself: its last words are the best guess


async def test_of_a_killed_child_the_signal_is_told_not_what_it_said_long_before() -> None:
    code = "import os; print('[warning ] long ago', flush=True); os.kill(os.getpid(), 9)"
    killed = child(code)
    async with asyncio.timeout(TIMEOUT_S):
        await Supervisor([killed], Witness(), restart=False).run()
    assert killed.last_complaint == "killed by signal 9"


@contextlib.asynccontextmanager
async def answering(node: str, pid: int, asked: list[str]) -> AsyncIterator[str]:
    """A node's HTTP door that says that it is ready; its address. `asked` grows with each answer."""

    async def ready(_: web.Request) -> web.Response:
        return web.json_response({"status": "ready"})

    async def cluster(_: web.Request) -> web.Response:
        asked.append(node)
        named = dict.fromkeys(("cluster", "storage", "durability", "durability_means"), "x")
        return web.json_response({"node": node, "pid": pid, **named, "nodes": [], "partitions": []})

    app = web.Application()
    app.router.add_get("/health/ready", ready)
    app.router.add_get("/v1/cluster", cluster)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(("node", "is_by_hand"), [("n1", True), ("n2", False)])
async def test_a_node_that_was_started_by_hand_is_seen(node: str, is_by_hand: bool) -> None:
    """Only the launch's own children were asked. Who answers as another node is none of it."""
    one = child("pass")
    async with asyncio.timeout(TIMEOUT_S):
        await Supervisor([one], Witness(), restart=False).run()
    asked: list[str] = []
    async with answering(node, os.getpid(), asked) as one.http_url:
        watching = asyncio.create_task(watch([one], Witness()))
        if is_by_hand:
            await until(lambda: one.is_by_hand, TIMEOUT_S, "the stranger to be seen")
            assert one.is_ready
        else:
            await until(lambda: len(asked) > 2, TIMEOUT_S, "several answers")
            assert one.picture is None
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    assert (one.state, one.was_live) == (ChildState.ENDED, False)


def test_plain_lines_name_the_node_and_what_to_try(capsys: pytest.CaptureFixture[str]) -> None:
    display = PlainDisplay(load_settings(CONFIG), CONFIG)
    one = child(BROKEN)
    one.exit_status, one.last_words = 69, "allsource: n1: the port is taken"
    display.said(one, "hello")
    display.said(one, one.last_words)
    display.ended(one, 0.5)
    one.failures = FAILURES_MAX
    display.ended(one, None)
    display.ready(1.25)
    display.stopping()
    said = capsys.readouterr()
    assert said.out.splitlines()[0] == "n1 | hello"
    assert (
        "curl http://127.0.0.1:8101/v1/streams/hello/events -H content-type:application/json -d '{"
        in said.out
    )
    assert "is ready after 1.2 s: 3 nodes, 32 partitions" in said.out
    assert said.out.count("the port is taken") == 0, "why it ended is said once, with its end"
    assert said.err.splitlines() == [
        "allsource: n1 ended with status 69: the port is taken; it is started again in 0.5 s",
        "allsource: n1 ended with status 69: the port is taken; given up after 5 failed starts in a row",
    ]


def test_a_launch_says_what_memory_means() -> None:
    settings = load_settings(CONFIG)
    in_memory = replace(settings, storage=StorageSettings(backend="memory"))
    assert welcome(in_memory, CONFIG, 1.0)[-1].startswith("memory: what a node holds is gone when its")
    assert not any("gone" in line for line in welcome(settings, CONFIG, 1.0))


def test_what_to_try_can_be_typed_as_it_stands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Who typed scripts/launch has no `allsource` on the PATH."""

    def hint() -> str:
        (line,) = [one for one in welcome(load_settings(CONFIG), CONFIG, 1.0) if " status " in one]
        return line.split()[0]

    program = tmp_path / "bin" / "allsource"
    program.parent.mkdir()
    program.touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(program.with_name("python")))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert hint() == str(program)
    monkeypatch.chdir(tmp_path)
    assert hint() == "bin/allsource"
    monkeypatch.setenv("PATH", str(program.parent))
    assert hint() == "allsource"


def test_json_lines_tell_the_same_to_programs(capsys: pytest.CaptureFixture[str]) -> None:
    display = JsonDisplay(load_settings(CONFIG))
    one = child(BROKEN)
    one.exit_status, one.last_words = -9, "last"
    display.said(one, "hello")
    display.ended(one, None)
    display.ready(1.2)
    display.stopping()
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["happened"] for one in told] == ["said", "ended", "ready", "stopping"]
    assert (told[1]["node"], told[1]["status"], told[1]["again_in_s"]) == ("n1", -9, None)


def test_endings_are_told_in_words() -> None:
    one = child(BROKEN)
    one.exit_status = -9
    assert how_it_ended(one) == "was killed by signal 9"
    one.exit_status, one.last_words = 74, "a sync failed"
    assert how_it_ended(one) == "ended with status 74: a sync failed"
    one.has_ended(1.0)
    assert how_it_ended(one) == "ended with status 74: a sync failed"
    one.has_ended(1.0)
    assert how_it_ended(one) == "ended with status 74 again", "the reason is told once"
    one.last_words = "the port is taken"
    one.has_ended(1.0)
    assert how_it_ended(one) == "ended with status 74: the port is taken"
