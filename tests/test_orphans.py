"""A process that a test leaves is found and ended, also one that fled."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests import orphans
from tests.orphans import children, left_behind

SLEEPER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
FLEES = f"import subprocess; subprocess.Popen({SLEEPER!r}, start_new_session=True)"


def test_what_a_test_starts_and_forgets_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orphans, "_ENDING_S", 0.0)
    before = children()
    forgotten = subprocess.Popen(SLEEPER, stdout=subprocess.PIPE)
    assert forgotten.stdout is not None
    assert forgotten.stdout.readline() == b"up\n"  # before, /proc may not show its command line yet
    (told,) = left_behind(before)
    assert told.startswith(f"{forgotten.pid}: ")
    assert "time.sleep(600)" in told
    assert children() == before
    assert forgotten.wait() == 0  # reaped by `left_behind` already, so that nobody knows how it ended
    forgotten.stdout.close()


def test_so_is_one_whose_parent_has_ended_and_that_left_the_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(orphans, "_ENDING_S", 0.0)
    before = children()
    subprocess.run([sys.executable, "-c", FLEES], stdout=subprocess.DEVNULL, check=True)
    (told,) = left_behind(before)
    assert "time.sleep(600)" in told
    assert children() == before


def test_one_that_is_ending_is_waited_for() -> None:
    before = children()
    ending = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.05)"])
    assert left_behind(before) == []
    assert ending.wait() == 0
