"""A small language in which a scenario of the core is told, and its answers written down.

A transcript is a text of blocks: a command, a line of dashes, and what the cluster did in answer,
step by step (the manner of etcd/raft's `testdata`). It reads as a story, and a change of behaviour
shows as a change of the story. `pytest tests/cluster/consensus/test_transcripts.py --rewrite-transcripts`
writes the answers anew; commit such a change only if you understand it.

Time stands still except in `pass`, and messages arrive in the order in which they were sent; beats
and echoes are delivered and not shown. Every write is synced at once, unless its node's disk is held.

    cluster 3 [partitions=N] [KNOB=N ...]   fresh nodes n1, n2, ..., all connected; knobs of ConsensusConfig
    pass 50ms                               time passes
    append n1 [stream] [events]             propose an append (one event to stream "s") at n1
    appends n1 s t s                        propose an entry of appends, of one event to each stream, at n1
    read n1                                 a linearizable read at n1
    hold n1 / sync n1                       n1's disk hangs / does what waits
    cut n1 n2 / mend n1 n2                  nothing passes between two nodes / it does again
    isolate n1 / rejoin n1                  the same between n1 and all others
    crash n1 / start n1                     SIGKILL (what is not synced is lost) / a new process
    doubt n1 n2                             n1 is told, wrongly, that n2 is gone
    leave n1                                SIGTERM: hand leadership over
    log n1 / status                         n1's log / who leads, terms and commits
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from allsource.cluster.consensus.messages import (
    Append,
    AppendReply,
    Beat,
    CommitNotice,
    Echo,
    EchoReply,
    Message,
    ReadRound,
    ReadRoundReply,
    Ready,
    RequestVote,
    Role,
    TimeoutNow,
    VoteReply,
)
from allsource.cluster.consensus.multiraft import ConsensusConfig, MultiRaft
from allsource.cluster.membership.placement import replica_sets
from allsource.storage.model.entry import CONFIG, NOOP, Entry, NewAppend
from allsource.storage.model.log import PartitionWrite
from tests.simulation.disk import SimDisk, chunks_of
from tests.simulation.network import sealed_message
from tests.storage.logs import new_append

MILLISECOND = 1_000
DASHES = "----"
STEPS_MAX = 5_000


@dataclass
class Block:
    """A command with its answer; `before` is what stands above it (comments, empty lines)."""

    before: list[str]
    command: str
    answer: list[str]


def parse(text: str) -> list[Block]:
    """The blocks of a transcript."""
    blocks: list[Block] = []
    before: list[str] = []
    lines = iter(text.splitlines())
    for line in lines:
        if not line or line.startswith("#"):
            before.append(line)
            continue
        divider = next(lines, None)
        assert divider in (DASHES, None), f"{DASHES} must follow the command {line!r}, not {divider!r}"
        answer = []
        for said in lines:
            if not said:
                break
            answer.append(said)
        blocks.append(Block(before, line, answer))
        before = [""]
    return blocks


def show(blocks: list[Block]) -> str:
    """The text that `parse` reads."""
    lines: list[str] = []
    for block in blocks:
        lines += [*block.before, block.command, DASHES, *block.answer]
    return "\n".join(lines) + "\n"


class _LosesAll(Random):
    """The dice of a crash that keeps nothing of what was not synced."""

    def randint(self, a: int, _b: int) -> int:
        return a


class _Node:
    """One process and its disk."""

    def __init__(self, name: str, hosted: tuple[int, ...]) -> None:
        self.name = name
        self.hosted = hosted
        self.disk = SimDisk(hosted)
        self.core: MultiRaft | None = None
        self.held = False
        self.starts = 0
        self.number = 0
        """The newest write that waits for a sync; 0 if none does."""


class Interpreter:
    """Carries out commands on one cluster and says what happened."""

    def __init__(self) -> None:
        self._said: list[str] = []
        self._now = 0
        self._nodes: dict[str, _Node] = {}
        self._members: tuple[str, ...] = ()
        self._cuts: dict[tuple[str, str], None] = {}
        self._mail: deque[tuple[str, str, list[Message] | Beat]] = deque()
        self._config = ConsensusConfig()
        self._partitions = 1
        self._events = 0

    def do(self, command: str) -> list[str]:
        """Carry out one command; what happened, line by line."""
        word, *arguments = command.split()
        commands: dict[str, Callable[..., None]] = {
            "cluster": self._cluster,
            "pass": self._pass,
            "append": self._append,
            "appends": self._appends,
            "read": self._read,
            "hold": self._hold,
            "sync": self._sync,
            "cut": self._cut,
            "mend": self._mend,
            "isolate": self._isolate,
            "rejoin": self._rejoin,
            "crash": self._crash,
            "start": self._start,
            "doubt": self._doubt,
            "leave": self._leave,
            "log": self._log,
            "status": self._status,
        }
        self._said = []
        commands[word](*arguments)
        self._settle()
        return self._said or ["nothing happens"]

    # -- the commands

    def _cluster(self, count: str, *knobs: str) -> None:
        values = {name: int(value) for name, value in (knob.split("=") for knob in knobs)}
        self._partitions = values.pop("partitions", 1)
        self._config = ConsensusConfig(**values)
        self._members = tuple(f"n{number}" for number in range(1, int(count) + 1))
        replicas = replica_sets(self._members, self._partitions, len(self._members))
        for name in self._members:
            hosted = tuple(p for p, group in enumerate(replicas) if name in group)
            self._nodes[name] = _Node(name, hosted)
        for name in self._members:
            self._start(name)

    def _start(self, name: str) -> None:
        node = self._nodes[name]
        node.starts += 1
        node.core = MultiRaft(
            name,
            self._members,
            {partition: node.disk.load(partition) for partition in node.hosted},
            node.disk,
            config=self._config,
            replication_factor=len(self._members),
            partition_count=self._partitions,
            incarnation=node.starts,
            seed=int(name[1:]),
            now=self._now,
        )
        self._say(name, "starts")
        for peer in self._living():
            if peer is not node and not self._is_cut(name, peer.name):
                self._core(peer).peer_connected(name, self._now)
                self._core(node).peer_connected(peer.name, self._now)

    def _crash(self, name: str) -> None:
        node = self._nodes[name]
        lost = node.disk.unsynced()
        node.disk.crash(_LosesAll())
        node.core, node.held, node.number = None, False, 0
        self._say(name, f"is gone, {lost} writes were not synced" if lost else "is gone")
        for peer in self._living():
            if not self._is_cut(name, peer.name):
                self._core(peer).peer_lost(name, self._now)
                self._core(peer).peer_refused(name, self._now)

    def _pass(self, span: str) -> None:
        end = self._now + int(span.removesuffix("ms")) * MILLISECOND
        for _ in range(STEPS_MAX):
            self._settle()
            due = min((self._core(node).next_deadline() for node in self._living()), default=end)
            if due > end:
                break
            self._now = max(self._now + 1, due)
            for node in self._living():
                self._core(node).tick(self._now)
        else:
            raise AssertionError(f"more than {STEPS_MAX} steps in {span}")
        self._now = end

    def _append(self, name: str, stream: str = "s", events: str = "1") -> None:
        core = self._core(self._nodes[name])
        if not core.can_propose(0):
            self._say(name, f"cannot propose, its leader is {core.leader_of(0)}")
            return
        version = self._nodes[name].disk.index[0].version(stream)
        entry = core.propose(0, [self._new(stream, version, int(events))], self._now)
        self._say(name, f"proposes {_entry(entry)}")

    def _appends(self, name: str, *streams: str) -> None:
        index = self._nodes[name].disk.index[0]
        new = [
            self._new(stream, index.version(stream) + streams[:number].count(stream), 1)
            for number, stream in enumerate(streams)
        ]
        entry = self._core(self._nodes[name]).propose(0, new, self._now)
        self._say(name, f"proposes {_entry(entry)}")

    def _new(self, stream: str, version: int, events: int) -> NewAppend:
        ids = [(self._events + offset).to_bytes(16, "big") for offset in range(events)]
        self._events += len(ids)
        return new_append((stream, version + 1, 0, chunks_of(ids)))

    def _read(self, name: str) -> None:
        self._core(self._nodes[name]).read(0, "a read", 0, self._now)

    def _hold(self, name: str) -> None:
        self._nodes[name].held = True
        self._say(name, "has a disk that hangs")

    def _sync(self, name: str) -> None:
        self._nodes[name].held = False
        self._finish_sync(self._nodes[name])

    def _cut(self, one: str, other: str) -> None:
        self._cuts[one, other] = self._cuts[other, one] = None

    def _mend(self, one: str, other: str) -> None:
        for a, b in ((one, other), (other, one)):
            del self._cuts[a, b]
            core = self._nodes[a].core
            if core is not None and self._nodes[b].core is not None:
                core.peer_connected(b, self._now)

    def _isolate(self, name: str) -> None:
        for other in self._members:
            if other != name:
                self._cut(name, other)

    def _rejoin(self, name: str) -> None:
        for other in self._members:
            if other != name:
                self._mend(name, other)

    def _doubt(self, name: str, peer: str) -> None:
        core = self._core(self._nodes[name])
        core.peer_lost(peer, self._now)
        core.peer_refused(peer, self._now)

    def _leave(self, name: str) -> None:
        core = self._core(self._nodes[name])
        for _ in range(STEPS_MAX):
            left = core.hand_over(self._now)
            self._settle()
            if left:
                self._say(name, "may go")
                return
        raise AssertionError(f"{name} never gets away")

    def _log(self, name: str) -> None:
        node = self._nodes[name]
        for partition, replica in node.disk.view.items():
            self._say(name, f"p{partition} {replica.hard}: {' '.join(map(_entry, replica.entries))}")

    def _status(self) -> None:
        for node in self._living():
            for partition, group in self._core(node).groups.items():
                leader = f"leader {group.leader}" if group.leader else "no leader"
                self._say(
                    node.name,
                    f"p{partition} {group.role} term {group.term} commit {group.commit}, {leader}",
                )

    # -- what happens

    def _settle(self) -> None:
        """Carry out all orders and deliver all messages until nothing moves; no time passes."""
        for _ in range(STEPS_MAX):
            for node in self._living():
                while (ready := self._core(node).ready()) is not None:
                    self._carry_out(node, ready)
            if not self._mail:
                return
            sender, target, payload = self._mail.popleft()
            receiver = self._nodes[target].core
            if receiver is None or self._is_cut(sender, target):
                continue
            if isinstance(payload, Beat):
                receiver.receive_beat(sender, payload, self._now)
            else:
                receiver.receive(sender, payload, self._now)
        raise AssertionError(f"more than {STEPS_MAX} messages without a pause")

    def _carry_out(self, node: _Node, ready: Ready) -> None:
        for write in ready.writes:
            self._say(node.name, f"writes {_write(write)}")
        if ready.writes:
            node.disk.write(ready.writes)
            node.number = ready.number
        for peer, messages in ready.send.items():
            messages = [sealed_message(message) for message in messages]
            self._mail.append((node.name, peer, messages))
            for message in messages:
                if isinstance(message, Echo | EchoReply):
                    continue
                lost = " (lost)" if self._is_cut(node.name, peer) or not self._nodes[peer].core else ""
                self._say(node.name, f"-> {peer} {_message(message)}{lost}")
        for peer, beat in ready.beats.items():
            self._mail.append((node.name, peer, beat))
        for change in ready.changes:
            leads = "" if change.role == Role.LEADER else f", leader {change.leader}"
            self._say(node.name, f"is {change.role} of p{change.partition} in term {change.term}{leads}")
        for partition, commit in ready.committed:
            self._say(node.name, f"commits p{partition} up to {commit}")
        for result in ready.reads:
            verdict = f"up to {result.index}" if result.ok else "refused"
            self._say(node.name, f"answers {result.ticket}: {verdict}")
        if node.number and not node.held:
            self._finish_sync(node)

    def _finish_sync(self, node: _Node) -> None:
        if node.number and node.core is not None:
            number, node.number = node.number, 0
            node.disk.harden(node.disk.unsynced())
            node.core.persisted(number, self._now)

    # -- small helpers

    def _living(self) -> Iterator[_Node]:
        return (node for node in self._nodes.values() if node.core is not None)

    def _core(self, node: _Node) -> MultiRaft:
        assert node.core is not None, f"{node.name} is not running"
        return node.core

    def _is_cut(self, one: str, other: str) -> bool:
        return (one, other) in self._cuts

    def _say(self, name: str, what: str) -> None:
        self._said.append(f"{self._now / MILLISECOND:7.1f}  {name} {what}")


def _entry(entry: Entry) -> str:
    """`index/term` and what it holds."""
    if entry.kind == NOOP:
        what = "noop"
    elif entry.kind == CONFIG:
        what = "configuration"
    else:
        what = " + ".join(
            ",".join(f"{part.stream}:{part.first_version}-{part.last_version}" for part in append.parts)
            for append in entry.appends
        )
    return f"{entry.index}/{entry.term}({what})"


def _write(write: PartitionWrite) -> str:
    parts = [f"p{write.partition}"]
    if write.hard is not None:
        vote = write.hard.vote or "nobody"
        parts.append(f"term {write.hard.term}, vote {vote}, commit {write.hard.commit}")
    if write.truncate_from is not None:
        parts.append(f"nothing from {write.truncate_from} on")
    parts += [_entry(entry) for entry in write.entries]
    return " ".join(parts)


def _message(message: Message) -> str:
    shown: dict[type, Callable[[Any], str]] = {
        RequestVote: lambda m: (
            f"{'would you vote' if m.pre else 'vote'} for me in term {m.term}? "
            f"last {m.last_index}/{m.last_term}{', by transfer' if m.transfer else ''}"
        ),
        VoteReply: lambda m: (
            f"{'yes' if m.granted else 'no'}, {'I would' if m.pre else 'my vote'}, term {m.term}"
        ),
        Append: lambda m: (
            f"append term {m.term} behind {m.prev_index}/{m.prev_term} commit {m.commit}: "
            f"{' '.join(map(_entry, m.entries)) or 'nothing'}"
        ),
        AppendReply: lambda m: (
            f"have all up to {m.index}, term {m.term}"
            if m.accepted
            else f"refused behind {m.prev_index}, term {m.term}, try {m.index}/{m.hint_term}"
        ),
        CommitNotice: lambda m: f"committed up to {m.commit}, term {m.term}",
        TimeoutNow: lambda m: f"stand now, term {m.term}",
        ReadRound: lambda m: f"round {_round(m.round)}: do I still lead {_groups(m.groups)}?",
        ReadRoundReply: lambda m: (
            f"round {_round(m.round)}: you do lead {', '.join(f'p{p}' for p, _ in m.groups)}"
        ),
    }
    return shown[type(message)](message)


def _round(number: int) -> str:
    """`1.3`: the third of the first process."""
    return f"{number >> 32}.{number & 0xFFFF_FFFF}"


def _groups(groups: list[tuple[int, int]]) -> str:
    return ", ".join(f"p{partition} in term {term}" for partition, term in groups)
