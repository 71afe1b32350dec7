"""Requests through a cluster of real members: served here, forwarded, parked, refused or unknown."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from allsource.cluster.consensus.messages import Message
from allsource.cluster.protocol.requests import (
    TYPES_MAX,
    AppendResult,
    DescribeCluster,
    MarkState,
    PassOn,
    ReadMark,
    ReadPartition,
    ReadStream,
    ReadTag,
    TagPage,
)
from allsource.config.schema import Limits
from allsource.node.observe import metrics as names
from allsource.node.requests import forwarding
from allsource.storage.interface import Refusal
from allsource.storage.model.chunks import unpack_chunks
from allsource.storage.model.entry import Mark
from allsource.storage.model.errors import (
    DiskFull,
    EventIdConflict,
    InvalidRequest,
    MarkRefused,
    NoMajority,
    NoOwner,
    NotFound,
    NotOwner,
    OutcomeUnknown,
    Overloaded,
    QueueFull,
    ShuttingDown,
    TooLarge,
    Unavailable,
    WrongExpectedTag,
    WrongExpectedVersion,
)
from allsource.storage.model.events import NewEvent
from allsource.storage.model.expected import NO_STREAM
from allsource.storage.model.partition import partition_of, partition_of_tag
from tests.node.appends import append, events, marks_alone
from tests.node.members import Cluster, streams_in, until


def owner_of(cluster: Cluster, stream: str) -> str:
    (owner,) = cluster.leaders(partition_of(stream, cluster.settings.partitions))
    return owner


def not_owner_of(cluster: Cluster, stream: str) -> str:
    return next(node for node in cluster.members if node != owner_of(cluster, stream))


# -- one node


async def test_one_node_appends_and_reads() -> None:
    async with Cluster(1) as cluster:
        result = await cluster.ask("n1", append(("a", events(3)), expected=NO_STREAM))
        assert result.streams == (("a", 1, 3),)
        page = await cluster.ask("n1", ReadStream("a"))
        assert [event.version for event in page.events()] == [1, 2, 3]
        page = await cluster.ask("n1", ReadPartition(result.partition))
        assert page.last_position == 3


async def test_a_conflict_names_the_actual_version() -> None:
    async with Cluster(1) as cluster:
        await cluster.ask("n1", append(("a", events(2))))
        error = await cluster.ask("n1", append(("a", events()), expected=1))
        assert isinstance(error, WrongExpectedVersion)
        assert error.details == {"stream": "a", "expected": 1, "actual": 2}
        assert cluster.metrics["n1"].counter(names.CONFLICTS) == 1


async def test_what_cannot_be_routed_is_refused_and_counted() -> None:
    async with Cluster(1) as cluster:
        assert type(await cluster.ask("n1", ReadPartition(8))) is InvalidRequest
        assert type(await cluster.ask("n1", ReadStream(" a"))) is InvalidRequest
        counted = cluster.metrics["n1"]
        assert counted.counter(names.REJECTIONS, "invalid") == 2
        cluster.members["n1"].service.close_intake()
        assert type(await cluster.ask("n1", ReadStream("a"))) is ShuttingDown
        assert counted.counter(names.REJECTIONS, "shutting_down") == 1


async def test_a_retry_is_stored_once_and_answered_alike() -> None:
    async with Cluster(1) as cluster:
        request = append(("a", events(2)), expected=NO_STREAM)
        first, second = await asyncio.gather(cluster.ask("n1", request), cluster.ask("n1", request))
        third = await cluster.ask("n1", request)
        assert [first.duplicate, second.duplicate, third.duplicate] == [False, True, True]
        assert first.streams == second.streams == third.streams
        assert first.token == second.token == third.token
        page = await cluster.ask("n1", ReadStream("a"))
        assert page.current_version == 2
        assert cluster.metrics["n1"].counter(names.DUPLICATES) == 2


async def test_used_ids_with_other_content_are_a_conflict() -> None:
    async with Cluster(1) as cluster:
        event = NewEvent("T", b"1")
        await cluster.ask("n1", append(("a", [event])))
        error = await cluster.ask("n1", append(("a", [NewEvent("T", b"2", id=event.id)])))
        assert isinstance(error, EventIdConflict)


async def test_several_streams_are_appended_together_or_not_at_all() -> None:
    async with Cluster(1) as cluster:
        one, two = streams_in(3, 2)
        result = await cluster.ask("n1", append((one, events(2)), (two, events(3))))
        assert result.streams == ((one, 1, 2), (two, 1, 3))
        assert result.last_position - result.first_position == 4
        error = await cluster.ask("n1", append((one, events()), (two, events(), 9)))
        assert isinstance(error, WrongExpectedVersion)
        assert (await cluster.ask("n1", ReadStream(one))).current_version == 2


async def test_many_writers_of_one_version_have_one_winner() -> None:
    async with Cluster(3) as cluster:
        asked = [
            cluster.ask(node, append(("a", events()), expected=NO_STREAM))
            for _ in range(20)
            for node in cluster.members
        ]
        answers = await asyncio.gather(*asked)
        assert len([a for a in answers if isinstance(a, AppendResult)]) == 1
        losers = [a for a in answers if isinstance(a, WrongExpectedVersion)]
        assert [a.details["actual"] for a in losers] == [1] * 59


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (append(("{t}a", events()), ("{u}a", events())), InvalidRequest),
        (append(("a", events(1, size=2000))), TooLarge),
        (append((" a", events())), InvalidRequest),
        (ReadStream(""), InvalidRequest),
        (ReadStream("never"), NotFound),
        (ReadPartition(8), InvalidRequest),
        (ReadPartition(0, token="1:7"), InvalidRequest),
    ],
)
async def test_bad_requests_get_their_error_from_any_node(request_: Any, error: type[Exception]) -> None:
    async with Cluster(3, limits=Limits(event_bytes_max=1000)) as cluster:
        for node in cluster.members:
            assert type(await cluster.ask(node, request_)) is error


@pytest.mark.parametrize("token", ["9" * 5000, "0:" + "9" * 5000, f"0:{2**63}", "0:-1", "0:\u0663"])
@pytest.mark.parametrize("local", [False, True])
async def test_a_token_that_is_none_is_refused_by_every_node(token: str, local: bool) -> None:
    async with Cluster(3) as cluster:
        for node in cluster.members:
            for forwarded in (False, True):
                asked = ReadPartition(0, local=local, token=token)
                assert type(await cluster.ask(node, asked, forwarded=forwarded)) is InvalidRequest


async def test_a_token_from_the_future_is_refused_at_once_and_leaves_nothing_behind() -> None:
    async with Cluster(3) as cluster:
        stream = streams_in(0, 1)[0]
        result = await cluster.ask("n1", append((stream, events())))
        real = await cluster.ask("n2", ReadStream(stream, token=result.token))
        assert real.current_version == 1
        for node in cluster.members:
            for index in (result.index + 1, 10**15):
                asked = ReadStream(stream, token=f"0:{index}")
                error = await cluster.ask(node, asked, timeout_ms=600_000)
                assert type(error) is InvalidRequest
                assert error.details["reason"] == "token_from_the_future"
        leader = cluster.leader(0)
        assert leader.service.under_way() == 0
        assert not leader.core._rounds._confirmed


async def test_a_local_read_that_is_too_early_says_so_at_its_deadline() -> None:
    async with Cluster(3) as cluster:
        asked = ReadPartition(0, local=True, token="0:999")
        error = await cluster.ask("n2", asked, timeout_ms=50)
        assert type(error) is Unavailable
        assert error.details["reason"] == "behind"


# -- forwarding


async def test_any_node_answers_and_forwards_once() -> None:
    async with Cluster(3) as cluster:
        for number, node in enumerate(cluster.members, 1):
            result = await cluster.ask(node, append(("a", events())))
            assert result.streams == (("a", number, number),)
            page = await cluster.ask(node, ReadStream("a"))
            assert page.current_version == number
        forwards = [cluster.metrics[node].counter(names.FORWARDS) for node in cluster.members]
        assert sorted(forwards) == [0, 2, 2]


async def test_what_a_peer_sent_goes_no_further() -> None:
    async with Cluster(3) as cluster:
        wrong = not_owner_of(cluster, "a")
        for request in (append(("a", events())), ReadStream("a")):
            error = await cluster.ask(wrong, request, forwarded=True)
            assert type(error) is NotOwner
            assert error.details["owner"] == owner_of(cluster, "a")


async def test_a_node_that_keeps_no_replica_forwards_local_reads_too() -> None:
    async with Cluster(5) as cluster:
        await cluster.ask("n1", append(("a", events())))
        partition = partition_of("a", 8)
        outsiders = [n for n, member in cluster.members.items() if not member.replica.hosts(partition)]
        assert len(outsiders) == 2
        for node in outsiders:
            token = f"{partition}:{cluster.leader(partition).replica.commit_index(partition)}"
            page = await cluster.ask(node, ReadStream("a", local=True, token=token))
            assert page.current_version == 1


async def test_a_token_gives_read_your_writes_on_every_replica() -> None:
    async with Cluster(3) as cluster:
        for version in range(1, 20):
            result = await cluster.ask("n1", append(("a", events())))
            for node in cluster.members:
                page = await cluster.ask(node, ReadStream("a", local=True, token=result.token))
                assert page.current_version == version


async def test_the_view_of_the_cluster() -> None:
    async with Cluster(3) as cluster:
        result = await cluster.ask("n1", append(("a", events(2))))
        owner = owner_of(cluster, "a")
        view = (await cluster.ask(owner, DescribeCluster())).value
        row = view["partitions"][result.partition]
        assert (row["owner"], row["commit_index"], row["last_position"]) == (owner, result.index, 2)
        assert set(row["replicas"]) == {"n1", "n2", "n3"}
        assert [node["state"] for node in view["nodes"]] == ["up"] * 3


# -- tags and marks


async def test_every_node_reads_tags_and_marks_and_moves_them() -> None:
    async with Cluster(3) as cluster:
        partition = partition_of_tag("t", 8)
        for number, node in enumerate(cluster.members):
            result = await cluster.ask(
                node,
                append(
                    (f"{node}{{t}}", events(2)),
                    expected_tag=2 * number,
                    marks=[Mark("m", number + 1, 0)],
                ),
            )
            assert isinstance(result, AppendResult), result
        for node in cluster.members:
            for local in (True, False):
                token = result.token if local else ""
                page = await cluster.ask(node, ReadTag("t", local=local, token=token))
                assert isinstance(page, TagPage)
                assert [event.tag_number for event in page.events()] == [1, 2, 3, 4, 5, 6]
                mark = await cluster.ask(node, ReadMark(partition, "m", local=local, token=token))
                assert isinstance(mark, MarkState)
                assert (mark.position, mark.index) == (3, result.index)
            wrong = await cluster.ask(node, append(("a{t}", events()), expected_tag=5))
            assert type(wrong) is WrongExpectedTag
            behind = await cluster.ask(node, marks_alone(Mark("m", 2, 0), partition=partition))
            assert type(behind) is MarkRefused
        alone = await cluster.ask("n1", marks_alone(Mark("m", 0, 1), partition=partition))
        assert (alone.streams, alone.partition) == ((), partition)
        conflicts = sum(metrics.counter(names.CONFLICTS) for metrics in cluster.metrics.values())
        assert conflicts >= 6


@pytest.mark.parametrize(
    "request_",
    [
        ReadTag(""),
        ReadTag("{t}"),
        ReadTag("t", types=("",)),
        ReadTag("t", types=("T",) * (TYPES_MAX + 1)),
        ReadMark(8, "m"),
        ReadMark(-1, "m"),
        ReadMark(0, " m"),
        append(("$all", events())),
        append(("$a{t}", events()), ("b{t}", events())),
        append(("a", events()), expected_tag=0),
        marks_alone(Mark("m", 1, 0), partition=8),
        marks_alone(Mark("", 1, 0)),
        marks_alone(),
    ],
)
async def test_what_is_not_well_formed_is_refused_and_changes_nothing(request_: Any) -> None:
    async with Cluster(1) as cluster:
        assert type(await cluster.ask("n1", request_)) is InvalidRequest
        for partition in range(8):
            page = await cluster.ask("n1", ReadPartition(partition))
            assert page.last_position == 0


async def test_the_owner_dies_and_tags_and_marks_go_on_without_gap_or_step_back() -> None:
    async with Cluster(3) as cluster:
        partition = partition_of_tag("t", 8)
        (victim,) = cluster.leaders(partition)
        survivors = [node for node in cluster.members if node != victim]
        asked = []
        for number in range(40):
            request = append((f"s-{number % 5}{{t}}", events()), marks=[Mark(f"m-{number}", number, 0)])
            asked.append(asyncio.ensure_future(cluster.ask(survivors[number % 2], request)))
        await asyncio.sleep(0)
        cluster.kill(victim)
        answers = await asyncio.gather(*asked)
        assert all(isinstance(answer, AppendResult) for answer in answers), answers
        page = await cluster.ask(survivors[0], ReadTag("t"))
        assert [event.tag_number for event in page.events()] == list(range(1, 41))
        assert [answer.duplicate for answer in answers] == [False] * 40
        for number in (0, 39):
            mark = await cluster.ask(survivors[1], ReadMark(partition, f"m-{number}"))
            assert (mark.position, mark.index > 0) == (number, True)


# -- failures


async def test_the_owner_dies_and_appends_under_way_succeed_once() -> None:
    async with Cluster(3) as cluster:
        victim = owner_of(cluster, "a")
        survivors = [node for node in cluster.members if node != victim]
        requests = [append(("a", events())) for _ in range(50)]
        asked = [asyncio.ensure_future(cluster.ask(survivors[i % 2], r)) for i, r in enumerate(requests)]
        await asyncio.sleep(0)
        cluster.kill(victim)
        answers = await asyncio.gather(*asked)
        assert all(isinstance(answer, AppendResult) for answer in answers)
        page = await cluster.ask(survivors[0], ReadStream("a"))
        assert page.current_version == 50
        assert sorted(answer.streams[0].first_version for answer in answers) == list(range(1, 51))


async def test_what_was_forwarded_to_an_owner_that_fell_silent_goes_to_the_next_one() -> None:
    """A paused process closes no connection: nobody answers, and nobody ever says so."""
    async with Cluster(3) as cluster:
        victim = owner_of(cluster, "a")
        others = [node for node in cluster.members if node != victim]
        requests = [append(("a", events())) for _ in range(4)]
        beside = streams_in(partition_of("a", 8), 1, prefix="beside")[0]
        asked = [
            asyncio.ensure_future(cluster.ask(others[i % 2], request, timeout_ms=60_000))
            for i, request in enumerate(requests)
        ]
        asked.append(asyncio.ensure_future(cluster.ask(others[0], ReadStream(beside), timeout_ms=60_000)))
        await asyncio.sleep(0)
        for other in others:
            cluster.cut(victim, other)
        answers = await asyncio.gather(*asked)  # `ask` itself gives up long before their deadline
        assert all(isinstance(answer, AppendResult) for answer in answers[:4]), answers
        assert isinstance(answers[4], NotFound)
        cluster.cuts.clear()
        page = await cluster.ask(others[0], ReadStream("a"))
        assert sorted(event.id for event in page.events()) == sorted(
            event[0]
            for request in requests
            for part in request.parts
            for event in unpack_chunks(part.chunks)
        )


async def test_a_deposed_owner_acknowledges_nothing_that_is_lost() -> None:
    """KurrentDB #3472: appends that the old owner took while it was cut off must not be confirmed
    by the next owner's entries at the same indexes."""
    async with Cluster(3) as cluster:
        victim = owner_of(cluster, "a")
        others = [node for node in cluster.members if node != victim]
        for other in others:
            cluster.cut(victim, other)
        mine = append(("a", events()))
        stranded = asyncio.ensure_future(cluster.ask(victim, mine, timeout_ms=3000))
        await until(
            lambda: [n for n in cluster.leaders(partition_of("a", 8)) if n in others], "a new owner"
        )
        for number in range(5):
            result = await cluster.ask(others[0], append(("a", events())))
            assert result.streams == (("a", number + 1, number + 1),)
        cluster.cuts.clear()
        answer = await stranded
        page = await cluster.ask(others[1], ReadStream("a"))
        stored = [event.id for event in page.events()]
        if isinstance(answer, AppendResult):
            assert answer.streams[0].first_version == 6, "it was appended again, behind the others"
            assert len(stored) == 6
        else:
            assert isinstance(answer, OutcomeUnknown | NoMajority | NoOwner)


async def test_an_append_without_an_answer_is_unknown_at_its_deadline() -> None:
    async with Cluster(3) as cluster:
        victim = owner_of(cluster, "a")
        for other in cluster.members:
            if other != victim:
                cluster.cut(victim, other)
        answer = await cluster.ask(victim, append(("a", events())), timeout_ms=60)
        assert isinstance(answer, OutcomeUnknown)
        assert cluster.metrics[victim].counter(names.UNKNOWN_OUTCOMES) == 1


async def test_without_a_majority_writes_are_refused_at_once_and_local_reads_work() -> None:
    async with Cluster(3) as cluster:
        result = await cluster.ask("n1", append(("a", events())))
        await cluster.ask("n1", ReadStream("a", local=True, token=result.token))
        cluster.kill("n2")
        cluster.kill("n3")
        answer = await cluster.ask("n1", append(("a", events())), timeout_ms=60_000)
        assert type(answer) is NoMajority
        assert answer.definite
        assert type(await cluster.ask("n1", ReadStream("a"), timeout_ms=60_000)) is NoMajority
        page = await cluster.ask("n1", ReadStream("a", local=True))
        assert page.current_version == 1
        cluster.start("n3")
        await cluster.settled()
        result = await cluster.ask("n1", append(("a", events())))
        assert result.streams == (("a", 2, 2),)


async def test_all_members_killed_keep_what_was_acknowledged() -> None:
    async with Cluster(3) as cluster:
        for number in range(20):
            await cluster.ask("n1", append((f"s-{number}", events(2))))
        for node in ("n1", "n2", "n3"):
            cluster.kill(node)
            cluster.storages[node].crash()
        for node in ("n1", "n2", "n3"):
            cluster.start(node)
        await cluster.settled()
        for number in range(20):
            page = await cluster.ask("n2", ReadStream(f"s-{number}"))
            assert page.current_version == 2


async def test_an_election_is_waited_for() -> None:
    async with Cluster(3) as cluster:
        victim = owner_of(cluster, "a")
        cluster.kill(victim)
        survivor = next(iter(cluster.members))
        answer = await cluster.ask(survivor, append(("a", events())))
        assert isinstance(answer, AppendResult)


async def test_no_owner_until_the_deadline_is_definite() -> None:
    async with Cluster(3) as cluster:
        victim = owner_of(cluster, "a")
        others = [node for node in cluster.members if node != victim]
        cluster.kill(victim)
        cluster.cut(*others)  # they cannot elect anybody, and do not know yet that they are alone
        answer = await cluster.ask(others[0], append(("a", events())), timeout_ms=40)
        assert isinstance(answer, NoOwner | NoMajority)
        assert answer.definite


async def test_leadership_returns_to_its_owner_without_a_lost_answer() -> None:
    async with Cluster(3) as cluster:
        victim = owner_of(cluster, "a")
        cluster.kill(victim)
        survivor = next(iter(cluster.members))
        answers = []

        async def write() -> None:
            for _ in range(100):
                answers.append(await cluster.ask(survivor, append(("a", events()))))
                await asyncio.sleep(0.001)

        writing = asyncio.ensure_future(write())
        cluster.start(victim)
        await cluster.settled()
        await writing
        assert [answer.streams[0].first_version for answer in answers] == list(range(1, 101))
        assert owner_of(cluster, "a") == victim


async def test_an_append_that_died_with_its_owner_is_in_doubt_ever_after() -> None:
    async with Cluster(3) as cluster:
        victim = owner_of(cluster, "a")
        others = [node for node in cluster.members if node != victim]
        for other in others:
            cluster.cuts.add(frozenset((victim, other)))
        cluster.cuts.discard(frozenset((victim, others[0])))
        asked = asyncio.ensure_future(cluster.ask(others[0], append(("a", events())), timeout_ms=80))
        await asyncio.sleep(0)  # it is on its way to the owner now
        cluster.cut(*others)
        cluster.kill(victim)
        answer = await asked
        assert type(answer) is OutcomeUnknown


async def test_what_waits_for_an_owner_is_refused_when_the_majority_is_gone() -> None:
    async with Cluster(3) as cluster:
        victim = owner_of(cluster, "a")
        others = [node for node in cluster.members if node != victim]
        cluster.cut(*others)
        cluster.kill(victim)
        asked = [
            asyncio.ensure_future(cluster.ask(others[0], append(("a", events())), timeout_ms=60_000))
            for _ in range(20)
        ]
        await asyncio.sleep(0)
        cluster.kill(others[1])
        answers = await asyncio.gather(*asked)
        assert {type(answer) for answer in answers} == {NoMajority}


async def test_leaderships_won_and_lost_are_counted() -> None:
    async with Cluster(3) as cluster:
        victim = owner_of(cluster, "a")
        cluster.kill(victim)
        survivors = [cluster.metrics[node] for node in cluster.members]
        before = sum(metrics.counter(names.LEADERSHIP_CHANGES, "lost") for metrics in survivors)
        await cluster.settled()
        cluster.start(victim)
        await cluster.settled()
        owned = sum(member.replica.is_leader(p) for p in range(8) for member in [cluster.members[victim]])
        assert cluster.metrics[victim].counter(names.LEADERSHIP_CHANGES, "gained") >= owned
        lost = sum(metrics.counter(names.LEADERSHIP_CHANGES, "lost") for metrics in survivors)
        assert lost - before >= owned


# -- a link of two nodes is cut


async def cut_off(cluster: Cluster, one: str, other: str) -> None:
    """Cut the link of two nodes, and wait until both know."""
    cluster.cut(one, other)
    for node, peer in ((one, other), (other, one)):
        registry = cluster.members[node].core.registry
        await until(lambda r=registry, p=peer: not r.is_healthy(p), f"{node} misses {peer}")  # type: ignore[misc]


async def test_a_node_that_cannot_reach_the_leader_is_served_through_one_that_can() -> None:
    async with Cluster(3) as cluster:
        partition = next(p for p in range(8) if cluster.leaders(p) == ["n3"])
        stream = streams_in(partition, 1)[0]
        term = cluster.leader(partition).core.term_of(partition)
        await cut_off(cluster, "n1", "n3")
        for number in range(1, 21):
            result = await cluster.ask("n1", append((stream, events())))
            assert isinstance(result, AppendResult), result
            page = await cluster.ask("n1", ReadStream(stream))
            assert page.current_version == number
        conflict = await cluster.ask("n1", append((stream, events()), expected=NO_STREAM))
        assert isinstance(conflict, WrongExpectedVersion)
        assert cluster.leaders(partition) == ["n3"], "it leads rightly: two of three follow it"
        assert cluster.leader(partition).core.term_of(partition) == term


async def test_what_waits_for_a_leader_behind_a_cut_link_is_sent_the_other_way() -> None:
    async with Cluster(3) as cluster:
        partition = next(p for p in range(8) if cluster.leaders(p) == ["n3"])
        stream = streams_in(partition, 1)[0]
        cluster.cut("n1", "n3")
        asked = [cluster.ask("n1", append((stream, events()))) for _ in range(20)]
        answers = await asyncio.gather(*asked)
        assert all(isinstance(answer, AppendResult) for answer in answers)
        assert (await cluster.ask("n1", ReadStream(stream))).current_version == 20


async def test_a_leader_that_lives_and_is_not_reached_is_named_at_once_or_asked_through_a_peer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Cluster(3) as cluster:
        partition = next(p for p in range(8) if cluster.leaders(p) == ["n3"])
        stream = streams_in(partition, 1)[0]
        core = cluster.members["n1"].core
        monkeypatch.setattr(core, "lane_carries", lambda peer, _now: peer == "n2")
        await until(lambda: not core.registry.is_reached("n3"))
        assert core.registry.is_healthy("n3")
        answer = None
        while not isinstance(answer, AppendResult):  # where a beat of n2 is late, it is not known as a way
            answer = await cluster.ask("n1", append((stream, events())))
            assert isinstance(answer, AppendResult | NotOwner)
            await asyncio.sleep(0)  # an answer at once gives the beats no turn (in Python 3.12)
        monkeypatch.setattr(core, "lane_carries", lambda _peer, _now: False)
        await until(lambda: not core.registry.is_reached("n2"))
        began = asyncio.get_running_loop().time()
        error = await cluster.ask("n1", append((stream, events())), timeout_ms=60_000)
        assert isinstance(error, NotOwner)
        assert error.details["owner"] == "n3"
        assert asyncio.get_running_loop().time() - began < 30


async def test_what_a_node_was_asked_to_pass_on_goes_to_the_leader_or_back() -> None:
    """Whatever the nodes believe of each other: there is no third hop."""
    async with Cluster(3) as cluster:
        partition = next(p for p in range(8) if cluster.leaders(p) == ["n3"])
        stream = streams_in(partition, 1)[0]
        await cut_off(cluster, "n1", "n3")
        asked = PassOn(append((stream, events())))
        assert isinstance(await cluster.ask("n2", asked, forwarded=True), AppendResult)
        error = await cluster.ask("n1", asked, forwarded=True)
        assert isinstance(error, NotOwner), "n1 could only ask n2 to pass it on"
        assert isinstance(await cluster.ask("n2", asked), InvalidRequest), "that is for nodes to ask"


async def test_a_peer_that_could_not_pass_a_request_on_is_not_asked_again_before_its_next_beat(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Cluster(3) as cluster:
        partition = next(p for p in range(8) if cluster.leaders(p) == ["n3"])
        stream = streams_in(partition, 1)[0]
        await cut_off(cluster, "n1", "n3")
        asked = beats = 0

        def refuse(_: Any, *, reply: Any, **__: Any) -> None:
            nonlocal asked
            asked += 1
            reply(NotOwner("not I"))

        monkeypatch.setattr(cluster.members["n2"], "submit", refuse)
        hear = cluster.members["n1"].beat

        def count(peer: str, beat: Any) -> None:
            nonlocal beats
            beats += peer == "n2"
            hear(peer, beat)

        monkeypatch.setattr(cluster.members["n1"], "beat", count)
        error = await cluster.ask("n1", append((stream, events())), timeout_ms=300)
        assert isinstance(error, NoOwner)
        assert 1 <= asked <= beats + 1


# -- back-pressure


async def test_a_full_queue_refuses() -> None:
    async with Cluster(1, limits=Limits(queue_capacity=4)) as cluster:
        answers = await asyncio.gather(*[cluster.ask("n1", append(("a", events()))) for _ in range(10)])
        assert [type(answer) for answer in answers].count(QueueFull) == 6
        assert [type(answer) for answer in answers].count(AppendResult) == 4
        assert cluster.metrics["n1"].counter(names.REJECTIONS, "queue_full") == 6


async def test_too_much_that_waits_for_a_majority_is_refused() -> None:
    limits = Limits(uncommitted_bytes_max=3000)
    async with Cluster(3, limits=limits) as cluster:
        victim = owner_of(cluster, "a")
        for other in cluster.members:
            if other != victim:
                cluster.cut(victim, other)
        asked = []
        for _ in range(9):  # each in a turn of its own: a group may go beyond it, as one append may
            request = append(("a", events(1, 900)))
            asked.append(asyncio.ensure_future(cluster.ask(victim, request, timeout_ms=60)))
            await asyncio.sleep(0)
            await until(lambda: cluster.queues[victim].is_empty)
        answers = await asyncio.gather(*asked)
        assert [type(answer) for answer in answers].count(Overloaded) >= 5
        assert [type(answer) for answer in answers].count(OutcomeUnknown) >= 2


@pytest.mark.parametrize("kind", [DiskFull, Overloaded])
async def test_a_disk_under_pressure_refuses_before_a_version_is_given(
    kind: type[DiskFull] | type[Overloaded], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Cluster(1) as cluster:
        refusal = Refusal(kind, "12 MiB free of 256 MiB wanted")
        monkeypatch.setattr(cluster.storages["n1"], "pressure", lambda: refusal)
        error = await cluster.ask("n1", append(("a", events())))
        assert type(error) is kind
        assert "12 MiB" in error.message
        assert type(await cluster.ask("n1", ReadStream("a"))) is NotFound
        monkeypatch.undo()
        result = await cluster.ask("n1", append(("a", events())))
        assert result.streams == (("a", 1, 1),)


async def test_parking_is_bounded() -> None:
    async with Cluster(3, limits=Limits(queue_capacity=5)) as cluster:
        victim = owner_of(cluster, "a")
        others = [node for node in cluster.members if node != victim]
        cluster.cut(*others)
        cluster.kill(victim)
        asked = [cluster.ask(others[0], append(("a", events())), timeout_ms=50) for _ in range(9)]
        answers = await asyncio.gather(*asked)
        assert [type(answer) for answer in answers].count(Overloaded) >= 4


async def test_room_for_parking_comes_back() -> None:
    async with Cluster(3, limits=Limits(queue_capacity=5)) as cluster:
        victim = owner_of(cluster, "a")
        survivor = next(node for node in cluster.members if node != victim)
        for round_ in range(3):
            cluster.kill(victim)
            asked = [cluster.ask(survivor, append(("a", events()))) for _ in range(5)]
            answers = await asyncio.gather(*asked)
            assert [type(answer) for answer in answers] == [AppendResult] * 5, f"round {round_}"
            cluster.start(victim)
            await cluster.settled()


async def test_no_more_is_sent_to_a_peer_than_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was sent and not answered in time ends as unknown; what is refused here did not happen."""
    monkeypatch.setattr(forwarding, "FORWARDED_MAX", 10)
    async with Cluster(3) as cluster:
        stream = streams_in(0, 1)[0]
        owner, other = owner_of(cluster, stream), not_owner_of(cluster, stream)
        kept: list[Any] = []
        with monkeypatch.context() as deaf:
            deaf.setattr(cluster.members[owner], "submit", lambda request, **named: kept.append(named))
            asked = [cluster.ask(other, append((stream, events())), timeout_ms=200) for _ in range(30)]
            answers = await asyncio.gather(*asked)
        assert len(kept) == 10
        assert [type(answer) for answer in answers].count(Overloaded) == 20
        assert [type(answer) for answer in answers].count(OutcomeUnknown) == 10
        for named in kept:
            assert named["timeout_ms"] < 190, "the owner's word arrives before this node must guess"
            named["reply"](NoOwner("too late"))
        await until(lambda: not cluster.members[other].service._forwarding._ways[owner].under_way)
        assert isinstance(await cluster.ask(other, append((stream, events()))), AppendResult)


# -- leaving


async def test_a_leaving_member_hands_over_and_refuses() -> None:
    async with Cluster(3) as cluster:
        await cluster.ask("n1", append(("a", events())))
        leaver = cluster.members[owner_of(cluster, "a")]
        node_id = leaver.core.node_id
        pending = asyncio.ensure_future(cluster.ask(node_id, append(("a", events()))))
        await asyncio.sleep(0)
        await leaver.leave(2.0)
        assert isinstance(await pending, AppendResult)
        assert not any(leaver.replica.is_leader(p) for p in range(8))
        assert type(await cluster.ask(node_id, append(("a", events())))) is ShuttingDown
        other = next(node for node in cluster.members if node != node_id)
        result = await cluster.ask(other, append(("a", events())))
        assert result.streams == (("a", 3, 3),)


async def test_the_others_give_a_leaving_member_nothing_back() -> None:
    async with Cluster(3) as cluster:
        leaver = cluster.members["n1"]
        assert [p for p in range(8) if leaver.replica.is_leader(p)]
        await leaver.leave(2.0)
        for other in ("n2", "n3"):
            registry = cluster.members[other].core.registry
            await until(
                lambda registry=registry: "n1" not in map(registry.owner_of, range(8)),
                f"{other} to hear that n1 leaves",
            )
        assert leaver.core.detector.is_up("n2"), "it still runs, and is heard"
        assert not any(leaver.replica.is_leader(p) for p in range(8))


async def test_a_stopped_member_answers_everything_that_it_had() -> None:
    async with Cluster(3) as cluster:
        victim = owner_of(cluster, "a")
        for other in cluster.members:
            if other != victim:
                cluster.cut(victim, other)
        asked = [asyncio.ensure_future(cluster.ask(victim, append(("a", events())))) for _ in range(3)]
        await until(lambda: cluster.members[victim].ingest.under_way() == 3)
        member = cluster.members.pop(victim)
        member.stop()
        assert [type(answer) for answer in await asyncio.gather(*asked)] == [OutcomeUnknown] * 3


async def test_messages_after_the_end_do_nothing() -> None:
    async with Cluster(1) as cluster:
        member = cluster.members["n1"]
        member.stop()
        nothing: list[Message] = []
        member.messages("n1", nothing)
        await asyncio.sleep(0)
        assert cluster.metrics["n1"].snapshot().errors == 0
