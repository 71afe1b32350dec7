"""What a drill tells: a line for each round while it runs, and the verdict in the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from allsource.node.cli.drill.checks import KINDS, Fault
from allsource.node.cli.drill.history import ACKNOWLEDGED, CONFLICT, REJECTED, UNKNOWN, History
from allsource.node.cli.drill.rounds import Round
from allsource.node.cli.figures import percentile, show_ms

_SHOWN_PER_KIND = 5


@dataclass(slots=True)
class Report:
    """Everything that a finished drill knows."""

    name: str
    nodes: int
    seed: int
    storage: str = "rocksdb"
    """The nodes' backend."""
    within_ms: float | None = None
    """The longest silence after an injury that is still a success, if the caller set one."""
    rounds: list[Round] = field(default_factory=list)
    attempts: dict[str, int] = field(default_factory=dict)
    """How many writes had each outcome."""
    events: int = 0
    """Events read back."""
    replicas: int = 0
    """Copies of partitions that were compared."""
    faults: list[Fault] = field(default_factory=list)
    remark: str = ""
    """Why the drill was another one than was asked for, if so."""
    stopped: str = ""
    """Why the drill could not go on, if so."""

    def count(self, history: History) -> None:
        """Take over the numbers of attempts."""
        self.attempts = {kind: history.count(kind) for kind in (ACKNOWLEDGED, CONFLICT, REJECTED, UNKNOWN)}

    def takeovers(self) -> list[float]:
        """Silence of each partition whose owner was hurt, of all rounds, in seconds."""
        return [round_.takeover[p] for round_ in self.rounds for p in round_.owned]

    def bystanders(self) -> list[float]:
        """Silence of the partitions whose owners were left alone, of all rounds."""
        return [s for r in self.rounds for p, s in r.takeover.items() if p not in r.owned]

    def returns(self) -> list[float]:
        """Silence of each hurt partition while it went back to its owner, of all rounds."""
        return [r.return_[p] for r in self.rounds for p in r.owned if p in r.return_]

    @property
    def too_slow(self) -> bool:
        """Whether some partition was silent for longer than allowed."""
        return self.within_ms is not None and max(self.takeovers(), default=0.0) * 1000 > self.within_ms

    @property
    def ok(self) -> bool:
        """Whether nothing at all was wrong."""
        return not (self.faults or self.stopped or self.too_slow)


def round_line(round_: Round, rounds: int, past: str) -> str:
    """A round in a line."""
    silences = [round_.takeover[p] for p in round_.owned]
    return (
        f"round {round_.number}/{rounds}: {', '.join(round_.victims)} {past};"
        f" {len(round_.owned)} partitions without writes for {show_ms(percentile(silences, 50))} ms"
        f" (median), {show_ms(max(silences, default=0.0))} ms (longest);"
        + (" not started again" if round_.back_s is None else f" healed in {round_.back_s:.1f} s")
    )


def verdict_lines(report: Report) -> list[str]:
    """The report for people."""
    lines = [_silence_line("time without writes, owner hurt", report.takeovers())]
    lines.append(_silence_line("time without writes, given back", report.returns()))
    lines.append(_silence_line("time without writes, other partitions", report.bystanders()))
    outcomes = ", ".join(f"{number:,} {name}" for name, number in report.attempts.items())
    lines.append(f"writes: {outcomes}")
    lines.append(f"read back: {report.events:,} events; {report.replicas} copies of partitions compared")
    found = Counter(fault.kind for fault in report.faults)
    lines += [
        f"{'FAULT' if found[kind] else 'none '} {found[kind]:>6}  {text}" for kind, text in KINDS.items()
    ]
    for kind in found:
        shown = [fault.detail for fault in report.faults if fault.kind == kind][:_SHOWN_PER_KIND]
        lines += [f"  {kind}: {detail}" for detail in shown]
    if report.too_slow:
        longest = show_ms(max(report.takeovers()))
        lines.append(f"TOO SLOW: {longest} ms without writes; {report.within_ms:g} ms allowed")
    if report.remark:
        lines.append(f"NOTE: {report.remark}")
    if report.stopped:
        lines.append(f"STOPPED: {report.stopped}")
    rounds = f"{len(report.rounds)} round{'s' if len(report.rounds) != 1 else ''}"
    done = f"{rounds} of {report.name} on {report.nodes} nodes with {report.storage}, seed {report.seed}"
    lines.append(f"{'PASSED' if report.ok else 'FAILED'}: {done}")
    return lines


def _silence_line(what: str, seconds: Sequence[float]) -> str:
    if not seconds:
        return f"{what}: nothing measured"
    p50, p99 = percentile(seconds, 50), percentile(seconds, 99)
    return f"{what}: p50 {show_ms(p50)} ms, p99 {show_ms(p99)} ms, max {show_ms(max(seconds))} ms"


def report_json(report: Report) -> dict[str, Any]:
    """The report for programs; times in milliseconds."""
    return {
        "ok": report.ok,
        "drill": report.name,
        "nodes": report.nodes,
        "storage": report.storage,
        "remark": report.remark or None,
        "seed": report.seed,
        "rounds": [_round_json(round_) for round_ in report.rounds],
        "without_writes_ms": {
            "owner_hurt": _summary(report.takeovers()),
            "given_back": _summary(report.returns()),
            "other_partitions": _summary(report.bystanders()),
        },
        "writes": report.attempts,
        "events": report.events,
        "copies_compared": report.replicas,
        "faults": [fault._asdict() for fault in report.faults],
        "too_slow": report.too_slow,
        "stopped": report.stopped or None,
    }


def _round_json(round_: Round) -> dict[str, Any]:
    return {
        "number": round_.number,
        "victims": round_.victims,
        "partitions": round_.owned,
        "without_writes_ms": _summary([round_.takeover[p] for p in round_.owned]),
        "accept_ms": round(round_.accept_s * 1000, 3),
        "back_ms": None if round_.back_s is None else round(round_.back_s * 1000, 3),
    }


def _summary(seconds: Sequence[float]) -> dict[str, float]:
    figures = {
        "p50": percentile(seconds, 50),
        "p99": percentile(seconds, 99),
        "max": max(seconds, default=0.0),
    }
    return {name: round(value * 1000, 3) for name, value in figures.items()}
