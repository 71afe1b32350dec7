"""What strangers and misbehaving clients do to a node, again and again, each kind in a task of its own.

It runs in a process of its own (`python -m tests.soak.abuse`): what the abuser's interpreter does must not
be taken for the cluster's. Every kind is bounded: so many connections and bytes, so many rounds a second.
A kind that the cluster refuses goes on: being refused is what it is for.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import os
import random
import socket
import struct
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import msgpack

from allsource.client.client import Client
from allsource.cluster.protocol.frames import ProtocolError, encode_frame
from allsource.cluster.protocol.session import ClientSession
from allsource.config.load import load_settings
from allsource.config.schema import NodeSettings, Settings
from allsource.node.cli.targets import connect

MIB = 1 << 20
JSON = "application/json"
MSGPACK = "application/msgpack"

RST = struct.pack("ii", 1, 0)
"""SO_LINGER of no seconds: closing sends a reset, as a killed client's kernel does."""


def bombs() -> Iterator[tuple[bytes, tuple[str, ...]]]:
    """Bodies and their headers. Made once, so that the abuser's own work takes nobody's processor."""
    for size in (MIB, 8 * MIB, 16 * MIB):
        keys = json.dumps(dict.fromkeys(map(str, range(size // 16)), 1)).encode()
        for body, kind in (
            (b"\x90" * size, MSGPACK),
            (struct.pack(">BI", 0xDD, size) + b"\x90" * size, MSGPACK),
            (b"[" * size, JSON),
            (b"[" + b"[]," * (size // 3) + b"[]]", JSON),
            (keys, JSON),
            (b'{"events":[' + b'{"type":"A","data":[[[[]]]]},' * (size // 29) + b"]}", JSON),
        ):
            yield body, (f"Content-Type: {kind}",)
            if size == 8 * MIB:
                yield gzip.compress(body, 1), (f"Content-Type: {kind}", "Content-Encoding: gzip")


class Abuser:
    """All kinds of abuse of one cluster. `counts` says how often each was tried."""

    def __init__(self, settings: Settings, seed: int) -> None:
        self.settings = settings
        self.random = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self._client: Client = connect(settings)
        self._bombs = list(bombs())

    def kinds(self) -> dict[str, Callable[[], Awaitable[None]]]:
        """One round of each kind, by name."""
        return {
            "aborted body": self.aborted_body,
            "parse bomb": self.parse_bomb,
            "stalled body": self.stalled_body,
            "slow reader": self.slow_reader,
            "native slow reader": self.native_slow_reader,
            "idle flood": self.idle_flood,
            "poison read": self.poison_read,
            "native poison": self.native_poison,
            "read flood": self.read_flood,
            "bad handshake": self.bad_handshake,
            "web page": self.web_page,
            "malformed http": self.malformed_http,
        }

    async def run(self, seconds: float, only: Sequence[str] = ()) -> None:
        """Do all kinds (or only these) at the same time until the time is over."""
        end = time.monotonic() + seconds
        kinds = {name: once for name, once in self.kinds().items() if not only or name in only}
        await asyncio.gather(*[self._repeat(name, once, end) for name, once in kinds.items()])

    async def _repeat(self, name: str, once: Callable[[], Awaitable[None]], end: float) -> None:
        while time.monotonic() < end:
            try:
                async with asyncio.timeout(min(20.0, max(0.1, end - time.monotonic()))):
                    await once()
            except (OSError, ProtocolError, EOFError, asyncio.IncompleteReadError, TimeoutError):
                pass  # refused, cut off or left waiting
            self.counts[name] += 1
            await asyncio.sleep(self.random.uniform(0.05, 0.25))

    def _node(self) -> NodeSettings:
        return self.random.choice(self.settings.nodes)

    # -- HTTP

    async def _http(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        node = self._node()
        return await asyncio.open_connection(node.host, node.http_port)

    async def _post(self, body: bytes, *headers: str, path: str = "/v1/streams/abuse/events") -> bytes:
        """A whole request; the first line of the answer."""
        reader, writer = await self._http()
        try:
            head = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *headers]
            writer.write("\r\n".join([*head, "", ""]).encode())
            writer.write(body)
            return await reader.readline()
        finally:
            writer.transport.abort()

    async def aborted_body(self) -> None:
        """Begin a body of 8 MiB and hang up in the middle of it, some with a reset."""
        _reader, writer = await self._http()
        writer.write(
            b"POST /v1/append HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 8388608\r\n\r\n" + b"[" * self.random.choice((10, 1000, MIB))
        )
        await asyncio.wait_for(writer.drain(), 2)
        if self.random.random() < 0.5:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
        writer.transport.abort()

    async def parse_bomb(self) -> None:
        """Bodies that are small to send and huge to parse."""
        body, headers = self.random.choice(self._bombs)
        await self._post(body, *headers)

    async def stalled_body(self) -> None:
        """Twenty bodies at once that never end."""
        writers = []
        try:
            for _ in range(20):
                _reader, writer = await self._http()
                writers.append(writer)
                writer.write(
                    b"POST /v1/append HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                    b"Content-Length: 4194304\r\n\r\n" + b" " * 65536
                )
            await asyncio.sleep(15)
        finally:
            for writer in writers:
                writer.transport.abort()

    async def slow_reader(self) -> None:
        """Ask for large pages and read nothing."""
        writers = []
        try:
            for _ in range(10):
                _reader, writer = await self._http()
                writers.append(writer)
                writer.transport.pause_reading()  # type: ignore[attr-defined]
                ask = (
                    f"GET /v1/partitions/{self.random.randrange(32)}/events?limit=10000&consistency=local "
                    "HTTP/1.1\r\nHost: localhost\r\n\r\n"
                )
                writer.write(ask.encode() * 20)
            await asyncio.sleep(10)
        finally:
            for writer in writers:
                writer.transport.abort()

    async def idle_flood(self) -> None:
        """Some hundreds of connections to either port that say nothing, or a byte now and then."""
        node = self._node()
        port = self.random.choice((node.http_port, node.port))
        writers = []
        try:
            for _ in range(400):
                _reader, writer = await asyncio.open_connection(node.host, port)
                writers.append(writer)
            for _ in range(5):
                for writer in writers[:100]:
                    writer.write(b"G")
                await asyncio.sleep(1)
        finally:
            for writer in writers:
                writer.transport.abort()

    async def poison_read(self) -> None:
        """Queries that no program of ours would send."""
        odd = self.random.choice(
            (
                "-1",
                "9" * 5000,
                "0x10",
                "1e400",
                "NaN",
                "%00",
                "9223372036854775808",
                "true",
                "",
                "💥",
                "1" * 40,
            )
        )
        name = self.random.choice(("from", "limit", "token", "consistency", "direction"))
        reader, writer = await self._http()
        try:
            path = f"/v1/streams/abuse/events?{name}={odd}&token={'3:' + '7' * 4000}"
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            await reader.readline()
        finally:
            writer.transport.abort()

    async def web_page(self) -> None:
        """What a page in somebody's browser can send to an address on their machine."""
        body = b'{"events": [{"type": "FromAPage", "data": 1}]}'
        await self._post(body, "Content-Type: text/plain", "Origin: http://evil.example")
        await self._post(b"{}", "Content-Type: text/plain", path="/v1/checkpoints")
        await self._post(body, f"Content-Type: {JSON}", "Sec-Fetch-Site: cross-site")

    async def malformed_http(self) -> None:
        """Bytes that are not HTTP, or nearly."""
        reader, writer = await self._http()
        try:
            writer.write(
                self.random.choice(
                    (
                        os.urandom(512),
                        b"GET / HTTP/9.9\r\n\r\n",
                        b"POST /v1/append HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
                        b"GET /" + b"a" * 60_000 + b" HTTP/1.1\r\n\r\n",
                        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5000,
                    )
                )
            )
            await reader.readline()
        finally:
            writer.transport.abort()

    # -- the native port

    async def _native(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, ClientSession]:
        """A connection with a finished handshake, in the role of a client."""
        node = self._node()
        reader, writer = await asyncio.open_connection(node.host, node.port)
        session = ClientSession(self._client._config, nonce=os.urandom(32))
        try:
            while session.welcome is None:
                writer.writelines(session.take())
                data = await reader.read(65536)
                if not data:
                    raise EOFError("the node hung up in the handshake")
                session.receive(data)
            writer.writelines(session.take())
        except BaseException:
            writer.transport.abort()
            raise
        return reader, writer, session

    async def native_poison(self) -> None:
        """Requests with values that no client library would send, and frames that are none."""
        reader, writer, _session = await self._native()
        odd = self.random.choice((-1, 2**63, 2**64 - 1, True, None, "1", b"\xff", [], 1.5))
        token = self.random.choice(
            ("3:" + "9" * 5000, "x" * 100_000, "-1:-1", 5, None, "0:9223372036854775807")
        )
        items = [
            [1, 5000, 2, "abuse", odd, 10, True, False, ""],
            [2, 5000, 2, "abuse", 1, odd, True, False, token],
            [3, odd, 3, 5, 1, 10, False, token],
            [4, 5000, 1, [["abuse", -1, b"\xdd\x00\x7f\xff\xff" + b"\x90" * 100_000]]],
            [5, 5000, 99, odd],
            [6, 5000, 1, [["abuse", odd, b"\x91\x90"]] * 50],
        ]
        frames = [
            msgpack.packb(
                [32, [self.random.choice(items) for _ in range(self.random.choice((1, 5, 500)))]]
            ),
            msgpack.packb([self.random.choice((16, 17, 99)), [[3, 0, 2**62, 0, 0, 0, []]]]),
            os.urandom(200),
            b"\x90" * self.random.choice((100, 100_000, 4 * MIB)),
        ]
        try:
            writer.write(encode_frame(self.random.choice(frames)))
            await asyncio.wait_for(reader.read(65536), 3)
        finally:
            writer.transport.abort()

    async def read_flood(self) -> None:
        """One small frame that asks for a thousand pages, some times over."""
        reader, writer, _session = await self._native()
        asks = [[i, 3000, 3, i % 32, 1, 10_000, True, ""] for i in range(1000)]
        try:
            for _ in range(3):
                writer.write(encode_frame(msgpack.packb([32, asks])))
            async with asyncio.timeout(4):
                while await reader.read(1 << 20):
                    pass
        finally:
            writer.transport.abort()

    async def native_slow_reader(self) -> None:
        """The same, and nothing of the answers is read."""
        writers = []
        asks = [[i, 60_000, 3, i % 32, 1, 10_000, True, ""] for i in range(500)]
        try:
            for _ in range(5):
                _reader, writer, _session = await self._native()
                writers.append(writer)
                writer.transport.pause_reading()  # type: ignore[attr-defined]
                writer.write(encode_frame(msgpack.packb([32, asks])))
            await asyncio.sleep(10)
        finally:
            for writer in writers:
                writer.transport.abort()

    async def bad_handshake(self) -> None:
        """Somebody who does not know the secret, or not the protocol."""
        node = self._node()
        reader, writer = await asyncio.open_connection(node.host, node.port)
        try:
            kind = self.random.randrange(4)
            if kind == 0:
                writer.write(os.urandom(300))
            elif kind == 1:
                writer.write(b"\xff\xff\xff\xff")
            elif kind == 2:
                writer.write(encode_frame(b"\x90" * 2000))
            else:
                session = ClientSession(
                    type(self._client._config).client("not-the-secret-at-all"), nonce=os.urandom(32)
                )
                writer.writelines(session.take())
                session.receive(await reader.read(65536))
                writer.writelines(session.take())
            await asyncio.wait_for(reader.read(65536), 3)
        finally:
            writer.transport.abort()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--kind", action="append", default=[])
    options = parser.parse_args()
    os.nice(10)  # it is the cluster's answers that are looked at, not who gets the processor

    async def go() -> None:
        abuser = Abuser(load_settings(options.config), options.seed)
        await abuser.run(options.seconds, options.kind)
        print(json.dumps(abuser.counts))

    asyncio.run(go())


if __name__ == "__main__":
    main()
