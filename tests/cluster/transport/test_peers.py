"""Links to peers: dialled for ever, and quick to say that one is gone."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from allsource.cluster.protocol import redial
from allsource.cluster.protocol.acquaintance import Start
from allsource.cluster.protocol.handshake import AcceptorConfig, DiallerConfig
from allsource.cluster.protocol.requests import ClusterView, DescribeCluster, Result
from allsource.cluster.transport import link
from allsource.cluster.transport.peers import PeerLinks
from allsource.storage.model.errors import AllsourceError, OutcomeUnknown, Unavailable
from allsource.storage.model.identity import Identity
from tests.cluster.live import Recorder, serve, until
from tests.cluster.protocol.wire_samples import (
    BEAT,
    CLUSTER,
    MESSAGES,
    N1,
    SECRET,
    START_1,
    START_2,
    Memory,
    acceptor,
)

OTHER = Start("replica-0", 1, bytes(16))
OLD_1, OLD_2 = START_1._replace(incarnation=9), START_2._replace(nonce=bytes(16))

pytestmark = pytest.mark.usefixtures("hang_up")


@asynccontextmanager
async def linked(port: int, *, pauses: list[float] | None = None, **config: Any) -> Any:
    """Links of n1 to n2 at `port`, and what they tell. `pauses` grows with each pause between attempts."""
    told = Recorder()

    def jitter() -> float:
        if pauses is not None:
            pauses.append(0.5)
        return 0.5

    dial = DiallerConfig(**{"secret": SECRET, "identity": N1, "memory": Memory(START_1), **config})
    links = PeerLinks({"n1": ("127.0.0.1", 1), "n2": ("127.0.0.1", port)}, dial, told, jitter)
    links.start()
    try:
        yield links, told
    finally:
        await links.close()


def ask(links: PeerLinks, answers: list[Result | AllsourceError]) -> None:
    links.request("n2", DescribeCluster(), 5000, answers.append)


async def test_a_peer_is_connected_when_both_its_channels_are() -> None:
    handler = Recorder()
    server = await serve(handler)
    async with linked(server.port) as (links, told):
        await until(lambda: told.news == [("connected", "n2", "replica-2")])
        assert links.is_connected("n2")
        links.send_messages("n2", MESSAGES)
        links.send_beat("n2", BEAT)
        answers: list[Result | AllsourceError] = []
        ask(links, answers)
        await until(lambda: answers)
        assert answers == [ClusterView({"up": True})]
        await until(lambda: handler.messages_of.get("n1") == MESSAGES and handler.beats_of["n1"] == [BEAT])
        assert handler.asked[0][3], "a peer's request counts as forwarded"
    await server.close()


async def test_a_peer_that_ends_is_lost_and_then_refuses_and_comes_back() -> None:
    server = await serve(Recorder())
    async with linked(server.port) as (links, told):
        await until(lambda: told.told("connected"))
        await server.close()
        await until(lambda: told.told("refused") >= 2)
        assert [news[0] for news in told.news].index("lost") == 1, "first lost, then refused"
        again = await serve(Recorder(), port=server.port)
        await until(lambda: told.told("connected") == 2)
        assert told.told("lost") == 1
        assert links.is_connected("n2")
        await again.close()


def wait_for_ever_between_attempts(patch: pytest.MonkeyPatch) -> None:
    """From now on whoever waits out the pause between two attempts does not come back within a test."""
    patch.setattr(redial, "FIRST_S", 10_000.0)
    patch.setattr(redial, "LONGEST_S", 10_000.0)


async def test_who_dials_us_is_dialled_back_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    server = await serve(Recorder())
    port = server.port
    await server.close()
    async with linked(port) as (links, told):
        await until(lambda: told.told("refused") >= 6)
        wait_for_ever_between_attempts(monkeypatch)
        refused = told.told("refused")
        await until(lambda: told.told("refused") >= refused + 2)  # one of each channel
        server = await serve(Recorder(), port=port)
        links.nudge("n2")
        await until(lambda: told.told("connected"))
        links.nudge("n2")
        assert links.is_connected("n2"), "a link that is up is left alone"
    links.nudge("n2")  # closed: nothing may be dialled any more
    await until(lambda: not server.connections)
    await server.close()


async def test_a_request_without_a_connection_surely_did_not_happen() -> None:
    async with linked(1) as (links, _):
        answers: list[Result | AllsourceError] = []
        ask(links, answers)
        assert isinstance(answers[0], Unavailable)
        assert answers[0].definite


async def test_a_request_that_dies_with_its_connection_is_unknown() -> None:
    handler = Recorder()
    handler.answer = lambda _: None
    server = await serve(handler)
    async with linked(server.port) as (links, told):
        await until(lambda: told.told("connected"))
        answers: list[Result | AllsourceError] = []
        ask(links, answers)
        await until(lambda: handler.waiting)
        await server.close()
        await until(lambda: answers)
        assert isinstance(answers[0], OutcomeUnknown)


async def test_closing_answers_what_is_pending() -> None:
    handler = Recorder()
    handler.answer = lambda _: None
    server = await serve(handler)
    answers: list[Result | AllsourceError] = []
    async with linked(server.port) as (links, told):
        await until(lambda: told.told("connected"))
        ask(links, answers)
        await until(lambda: handler.waiting)
    assert isinstance(answers[0], OutcomeUnknown)
    await server.close()


async def test_closing_ends_whatever_an_attempt_has_come_to() -> None:
    """uvloop forgets to say `connection_lost` when dialling is cancelled just after the connection was
    made; `close` once waited for it for ever. So close after each number of turns."""
    server = await serve(Recorder())
    for turns in range(40):
        async with asyncio.timeout(5), linked(server.port):
            for _ in range(turns):
                await asyncio.sleep(0)
    await until(lambda: not server.connections)
    await server.close()


@pytest.mark.parametrize(
    ("accept", "config", "code"),
    [
        (acceptor(secret="another secret"), {}, "wrong_secret"),
        (acceptor(identity=Identity("other", "n2", "replica-2", 7)), {}, "wrong_cluster"),
        (acceptor(identity=Identity(CLUSTER, "n3", "replica-3", 7)), {}, "wrong_node"),
        (acceptor(memory=Memory(START_2, known={"n1": OTHER})), {}, "identity_changed"),
        (acceptor(), {"memory": Memory(START_1, known={"n2": OTHER})}, "identity_changed"),
        (acceptor(memory=Memory(START_2, known={"n1": OLD_1})), {}, "regressed"),
        (acceptor(), {"memory": Memory(START_1, known={"n2": OLD_2})}, "regressed"),
    ],
)
async def test_who_does_not_belong_is_refused(
    accept: AcceptorConfig, config: dict[str, Any], code: str
) -> None:
    server = await serve(Recorder(), accept=accept)
    async with linked(server.port, **config) as (links, told):
        await until(lambda: told.told("refused"))
        assert told.news[0] == ("refused", "n2", code)
        assert not links.is_connected("n2")
    await server.close()


async def test_a_peer_that_does_not_read_is_given_up() -> None:
    """Bounded memory: what it does not take is not kept for ever, consensus repeats itself."""
    server = await serve(Recorder())
    told = Recorder()
    links = PeerLinks(
        {"n2": ("127.0.0.1", server.port)},
        DiallerConfig(secret=SECRET, identity=N1, memory=Memory(START_1)),
        told,
        lambda: 0.5,
        outgoing_bytes_max=2 << 20,
    )
    links.start()
    await until(lambda: told.told("connected"))
    for connection in server.connections:
        connection._transport.pause_reading()  # type: ignore[union-attr]

    def flood() -> bool:
        for _ in range(200):
            links.send_messages("n2", MESSAGES * 50)
        return told.told("lost") > 0

    await until(flood)
    await links.close()
    await server.close()


# -- how fast, and what is said of requests

_CHILD = """
import asyncio
from tests.cluster.live import Recorder, serve

async def main():
    server = await serve(Recorder())
    print(server.port, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_a_killed_process_is_lost_and_refused_at_once() -> None:
    """A failover waits for this news (measured here: 5 to 6 ms). It comes within the first few attempts: a
    dying process may still take one into its backlog, but none of the long pauses is waited out."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _CHILD, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[3]
    )
    assert child.stdout is not None
    pauses: list[float] = []
    try:
        port = int(await child.stdout.readline())
        async with linked(port, pauses=pauses) as (links, told):
            await until(lambda: told.told("connected"))
            loop = asyncio.get_running_loop()
            # A link that has just come up is redialled with a little patience; this one is old.
            for one in (links._data["n2"], links._beat["n2"]):
                one._up_since -= redial.STEADY_AFTER_S
            pauses.clear()
            killed = loop.time()
            os.kill(child.pid, signal.SIGKILL)
            await until(lambda: told.told("refused"))
            print(f"SIGKILL to refused: {(loop.time() - killed) * 1000:.1f} ms")
            assert [news[0] for news in told.news][1] == "lost"
            assert len(pauses) < 2 * 5, "of two channels: 10, 20, 40, 80 ms at most"
    finally:
        if child.returncode is None:
            with suppress(ProcessLookupError):
                child.kill()
            await child.wait()


async def test_a_request_that_was_queued_and_never_written_surely_did_not_happen() -> None:
    handler = Recorder()
    handler.answer = lambda _: None
    server = await serve(handler)
    async with linked(server.port) as (links, told):
        await until(lambda: told.told("connected"))
        answers: list[Result | AllsourceError] = []
        ask(links, answers)
        connection = links._data["n2"].connection
        connection.drop()  # in the very turn in which the request was queued
        ask(links, answers)
        await until(lambda: len(answers) == 2)
        assert [type(answer) for answer in answers] == [Unavailable, Unavailable]
        assert handler.asked == []
    await server.close()


async def test_an_answer_that_never_comes_is_given_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "ANSWER_GRACE_S", 0.0)
    monkeypatch.setattr(link, "SWEEP_S", 0.01)
    handler = Recorder()
    handler.answer = lambda _: None
    server = await serve(handler)
    async with linked(server.port) as (links, told):
        await until(lambda: told.told("connected"))
        answers: list[Result | AllsourceError] = []
        links.request("n2", DescribeCluster(), 20, answers.append)
        await until(lambda: answers)
        assert isinstance(answers[0], OutcomeUnknown)
        assert told.told("lost") == 0, "the peer is there, it only did not answer"
        connection, request_id, _ = handler.waiting[0]
        connection.reply(request_id, ClusterView({"late": True}))
        handler.answer = lambda _: ClusterView({"in time": True})
        ask(links, answers)
        await until(lambda: len(answers) == 2)
        assert answers[1] == ClusterView({"in time": True}), "the late answer went nowhere"
    await server.close()


async def test_a_host_name_with_two_addresses_refuses_as_one_with_one() -> None:
    """asyncio hides the refusal behind "Multiple exceptions" when both addresses refuse."""
    told = Recorder()
    dial = DiallerConfig(secret=SECRET, identity=N1, memory=Memory(START_1))
    links = PeerLinks({"n2": ("localhost", 1)}, dial, told, lambda: 0.5)
    links.start()
    await until(lambda: told.told("refused"))
    assert told.news[0] == ("refused", "n2", "ConnectionRefusedError")
    await links.close()
