"""The bytes on the wire, kept in `golden.txt`: a node of another release reads them.

A change here is a change of the protocol. `--rewrite-transcripts` writes the file anew; commit that only if
PROTOCOL.md says the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from allsource.cluster.protocol.codec import encode_request, encode_result
from allsource.cluster.protocol.message_codec import encode_beat, encode_message
from tests.cluster.protocol.wire_samples import BEAT, MESSAGES, REQUESTS, RESULTS, pair

GOLDEN = Path(__file__).with_name("golden.txt")


def lines() -> Iterator[str]:
    """One line for each sample: what it is, and its bytes."""
    for number, request in enumerate(REQUESTS):
        yield f"request {type(request).__name__} {encode_request(number, 5000, request).hex()}"
    for number, result in enumerate(RESULTS):
        yield f"result {type(result).__name__} {encode_result(number, result).hex()}"
    for message in MESSAGES:
        yield f"message {type(message).__name__} {encode_message(message).hex()}"
    yield f"beat {encode_beat(BEAT).hex()}"
    one, other = pair()
    one.request(1, 2, REQUESTS[0])
    one.messages(MESSAGES[:2])
    one.beat(BEAT)
    yield f"dialler's frames {b''.join(one.take()).hex()}"
    other.reply(1, RESULTS[0])
    yield f"acceptor's frames {b''.join(other.take()).hex()}"


def test_the_bytes_are_as_ever(request: pytest.FixtureRequest) -> None:
    found = "".join(f"{line}\n" for line in lines())
    if request.config.getoption("--rewrite-transcripts", default=False):
        GOLDEN.write_text(found)
    assert found.splitlines() == GOLDEN.read_text().splitlines()
