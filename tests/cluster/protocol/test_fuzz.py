"""A real server against bytes that nobody should send: it never dies, hangs, grows, or hurts the others.

Every case closes at most its own connection; an honest client stays connected throughout and is
answered after each. The seed is fixed and printed; `ALLSOURCE_FUZZ_SEED` replays another.
"""

from __future__ import annotations

import asyncio
import os
import random
import resource
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import msgpack
import pytest

from allsource.cluster.protocol.frames import ProtocolError, encode_frame
from allsource.cluster.protocol.handshake import DiallerConfig, WireLimits
from allsource.cluster.protocol.kinds import Kind
from allsource.cluster.protocol.requests import ClusterView, DescribeCluster
from allsource.cluster.transport.server import Server
from tests.cluster.live import Caller, Recorder, ended, serve, until
from tests.cluster.protocol.wire_samples import BEAT, MESSAGES, REQUESTS, acceptor, client, dialler

SEED = int(os.environ.get("ALLSOURCE_FUZZ_SEED", "20261123"))
GROWTH_BYTES_MAX = 96 << 20
FRAME_BYTES_MAX = 1 << 20

pytestmark = pytest.mark.usefixtures("hang_up")


@pytest.fixture(autouse=True)
def _say_the_seed() -> None:
    print(f"replay: ALLSOURCE_FUZZ_SEED={SEED} pytest tests/cluster/protocol/test_fuzz.py")


class Target:
    """A server, and an honest client of it."""

    def __init__(self, server: Server, honest: Caller) -> None:
        self.server = server
        self.honest = honest
        self._asked = 0

    async def serves(self) -> None:
        """The honest client is answered."""
        self._asked += 1
        answer = await self.honest.ask(self._asked, DescribeCluster())
        assert answer == ClusterView({"up": True})

    async def shrugs_off(self, config: DiallerConfig | None, pieces: list[bytes]) -> None:
        """Send these pieces, before (`config` None) or after a handshake, then hang up."""
        if config is None:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        else:
            caller = await Caller(config).connect(self.server.port)
            reader, writer = caller.reader, caller.writer
        with suppress(ConnectionError):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            writer.write_eof()
        await ended(reader)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        await until(lambda: len(self.server.connections) == 1, "its connection is closed")


@pytest.fixture
async def target() -> AsyncIterator[Target]:
    limits = WireLimits(frame_bytes_max=FRAME_BYTES_MAX)
    server = await serve(Recorder(), accept=acceptor(limits=limits))
    honest = await Caller(client()).connect(server.port)
    yield Target(server, honest)
    honest.close()
    await server.close()


WHO = {"stranger": None, "client": client(), "peer": dialler(), "peer's beats": dialler(channel="beat")}


def frames_of(config: DiallerConfig | None, chance: random.Random) -> bytes:
    """Valid frames that such a caller may send: what mutations start from."""
    from tests.cluster.protocol.wire_samples import pair

    session, _ = pair(config or client())
    session.take()
    if config is None or config is WHO["client"]:
        for number, request in enumerate(chance.sample(REQUESTS, 4)):
            session.request(number, 1000, request)
    elif config is WHO["peer"]:
        session.messages(chance.sample(MESSAGES, 4))
    else:
        session.beat(BEAT)
    return b"".join(session.take())


def in_pieces(data: bytes, chance: random.Random) -> list[bytes]:
    """Whole, byte by byte (a part of it), or cut anywhere."""
    how = chance.randrange(3)
    if how == 0:
        return [data]
    if how == 1:
        return [data[i : i + 1] for i in range(min(len(data), 60))] + [data[60:]]
    cuts = sorted(chance.randrange(len(data) + 1) for _ in range(4))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@pytest.mark.parametrize("who", WHO)
async def test_arbitrary_bytes(target: Target, who: str) -> None:
    chance = random.Random(f"bytes {SEED} {who}")
    for _ in range(40):
        data = chance.randbytes(chance.choice((1, 4, 5, 50, 3000)))
        if chance.random() < 0.5:  # a plausible length, so that the payload is looked at
            data = encode_frame(data)
        await target.shrugs_off(WHO[who], in_pieces(data, chance))
        await target.serves()


@pytest.mark.parametrize("who", WHO)
async def test_valid_frames_made_wrong(target: Target, who: str) -> None:
    chance = random.Random(f"mutants {SEED} {who}")
    for _ in range(60):
        data = bytearray(frames_of(WHO[who], chance))
        for _ in range(chance.choice((1, 1, 2, 8))):
            how = chance.randrange(4)
            at = chance.randrange(len(data))
            if how == 0:
                data[at] = chance.randrange(256)
            elif how == 1:
                data[at] ^= 1 << chance.randrange(8)
            elif how == 2:
                del data[at : at + chance.randrange(1, 9)]
            else:
                data[at:at] = chance.randbytes(chance.randrange(1, 9))
            data = data or bytearray(b"\0")
        await target.shrugs_off(WHO[who], in_pieces(bytes(data), chance))
        await target.serves()


@pytest.mark.parametrize("who", WHO)
async def test_frames_that_end_early(target: Target, who: str) -> None:
    chance = random.Random(f"cut {SEED} {who}")
    data = frames_of(WHO[who], chance)
    for end in chance.sample(range(len(data)), min(len(data), 30)):
        await target.shrugs_off(WHO[who], [data[:end]])
    await target.serves()


async def refusal_of(target: Target, config: DiallerConfig, data: bytes) -> str:
    caller = await Caller(config).connect(target.server.port)
    caller.writer.write(data)
    code = await caller.refusal()
    caller.close()
    return code


async def test_a_claim_of_a_huge_frame_is_refused_from_its_length_alone(target: Target) -> None:
    for claim in (FRAME_BYTES_MAX + 1, 2**31, 2**32 - 1):
        assert await refusal_of(target, client(), struct.pack(">I", claim)) == "frame_too_large"
    await target.serves()


def bombs() -> Iterator[bytes]:
    """Small messages that claim to hold far more than they do (msgpack reserves what is claimed)."""
    array, mapping, text, binary = b"\xdd", b"\xdf", b"\xdb", b"\xc6"
    for claim in (2**32 - 1, FRAME_BYTES_MAX, 100_000):
        size = struct.pack(">I", claim)
        for head in (array, mapping, text, binary):
            yield head + size
        for depth in (10, 400, 2000):
            yield (array + size) * depth
            yield (mapping + size + b"\x01") * depth
    yield b"\x91" * 200_000
    yield msgpack.packb([0] * 300_000)
    yield b"\xc9" + struct.pack(">I", 2**31) + b"\x05"


def resident_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize("who", ["client", "peer", "peer's beats"])
async def test_memory_bombs(target: Target, who: str) -> None:
    config = WHO[who]
    assert config is not None
    kinds = [bytes([kind]) for kind in (Kind.MESSAGES, Kind.BEAT, Kind.REQUESTS, Kind.RESULTS, 99)]
    before = resident_bytes()
    for bomb in bombs():
        for kind in kinds:
            await target.shrugs_off(config, [encode_frame(b"\x92" + kind + bomb)])
        code = await refusal_of(target, config, encode_frame(bomb))
        assert code not in ("", "internal"), "a typed reason"
    await target.serves()
    assert resident_bytes() - before < GROWTH_BYTES_MAX


async def test_a_strangers_bombs_are_not_even_read(target: Target) -> None:
    """Before the handshake a frame has at most a few kilobytes."""
    before = resident_bytes()
    for size in (5_000, 100_000, FRAME_BYTES_MAX):
        await target.shrugs_off(None, [struct.pack(">I", size), b"\xdd" * size])
    assert resident_bytes() - before < GROWTH_BYTES_MAX
    await target.serves()


async def test_what_the_wrong_side_may_not_send_is_refused(target: Target) -> None:
    """A client that sends a peer's frames gets a reason; so does a second handshake."""
    chance = random.Random(SEED)
    for data in (frames_of(WHO["peer"], chance), frames_of(WHO["peer's beats"], chance)):
        code = await refusal_of(target, client(), data)
        assert code not in ("", "internal")
    caller = await Caller(client()).connect(target.server.port)
    again = Caller(client())
    caller.writer.writelines(again.session.take())
    assert await caller.refusal() not in ("", "internal")
    with pytest.raises((ProtocolError, ConnectionError)):
        await caller.ask(1, DescribeCluster())
    await target.serves()
