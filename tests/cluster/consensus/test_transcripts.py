"""Replays the golden transcripts (see `transcript`): the core does what they say, word for word."""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest

from tests.cluster.consensus.transcript import Interpreter, parse, show

TRANSCRIPTS = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_transcript(path: Path, request: pytest.FixtureRequest) -> None:
    told = path.read_text(encoding="utf-8")
    blocks = parse(told)
    interpreter = Interpreter()
    for block in blocks:
        block.answer = interpreter.do(block.command)
    happened = show(blocks)
    if request.config.getoption("--rewrite-transcripts", default=False):
        path.write_text(happened, encoding="utf-8")
        return
    differences = difflib.unified_diff(
        told.splitlines(), happened.splitlines(), "told", "happened", lineterm=""
    )
    assert happened == told, "\n".join(differences)


def test_there_are_transcripts() -> None:
    assert len(TRANSCRIPTS) >= 8


def test_what_is_shown_is_what_was_parsed() -> None:
    for path in TRANSCRIPTS:
        text = path.read_text(encoding="utf-8")
        assert show(parse(text)) == text
