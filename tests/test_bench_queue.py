"""scripts/bench_queue.py runs, in a moment, and says what it should: whatever the figures are."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "bench_queue.py"


def bench(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, SCRIPT, "--seconds", "0.2", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_every_candidate_is_measured_with_every_number_of_threads() -> None:
    report: dict[str, Any] = json.loads(bench("--json"))
    measured = {
        title: {(figure["name"], figure["threads"]) for figure in figures}
        for title, figures in report["tables"].items()
    }
    for title, first, ours in (
        ("push + pop", "deque", {"LockFreeEventQueue", "queue.SimpleQueue", "queue.Queue"}),
        ("record", "int += under a lock", {"count", "record_ingest_batch", "observe"}),
    ):
        names = {name for name, _ in measured[title]}
        assert names > {first, *ours}
        assert measured[title] == {(name, threads) for name in names for threads in (1, 2, 8)}
        ratios = [f["ratio"] for f in report["tables"][title] if f["name"] == first]
        assert ratios == [1.0, 1.0, 1.0]
    assert {f"drain of {batch}" for batch in (16, 100, 1000)} < {n for n, _ in measured["drain, an event"]}
    assert all(f["ns"] > 0 and f["ratio"] > 0 for figures in report["tables"].values() for f in figures)
    assert len(report["verdicts"]) == 10


def test_people_get_tables_and_verdicts() -> None:
    text = bench()
    assert "LockFreeEventQueue" in text
    assert "push + pop, ns                      1 thread  ratio   2 threads  ratio" in text
    assert "an empty Python call takes" in text.splitlines()[-1]
