"""The life of a client: opened once, closed once, and between the two a place from which calls start.

`client` has the calls themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Self

from allsource.client import arguments
from allsource.client.calls import Call
from allsource.client.cluster_map import Address
from allsource.client.dialler import Dialler
from allsource.client.dispatch import Dispatcher
from allsource.client.gate import Gate
from allsource.client.opening import connect_to_one
from allsource.cluster.protocol.handshake import DiallerConfig
from allsource.cluster.protocol.requests import Request
from allsource.storage.model.arguments import flag, seconds, whole_number
from allsource.storage.model.errors import InvalidRequest, Unavailable

_READ_ROOM = 16_384


class ClientLife:
    """What stands behind the calls of a `Client`, whose page says what the arguments are."""

    def __init__(
        self,
        addresses: str | Iterable[str],
        *,
        secret: str,
        cluster_id: str,
        name: str,
        timeout_s: float,
        inflight_max: int,
        inflight_bytes_max: int,
        compression: bool,
    ) -> None:
        self._seeds = arguments.seeds(addresses)
        self._config = DiallerConfig.client(
            arguments.secret_of(secret),
            cluster_id=arguments.name_of("cluster_id", cluster_id),
            name=arguments.name_of("name", name),
        )
        self._timeout_s = seconds("timeout_s", timeout_s, arguments.TIMEOUT_S_MAX)
        self._gate = Gate(
            whole_number("inflight_max", inflight_max),
            whole_number("inflight_bytes_max", inflight_bytes_max),
        )
        self._compress = flag("compression", compression)
        self._dispatcher: Dispatcher | None = None
        self._dialler: Dialler | None = None

    async def open(self) -> None:
        """Connect to at least one node; once in a client's life.

        Raises `ConnectionRefused` (wrong secret, wrong cluster) at once, and `Unavailable` with each
        address's reason when none can be reached within the timeout.
        """
        if self._dispatcher is not None:
            raise InvalidRequest("a client is opened once; make a new one to connect again")
        news = asyncio.Event()

        def learned(members: Mapping[str, Address]) -> None:
            dialler.dial_members(members)
            news.set()

        dispatcher = Dispatcher(self._gate, learned)
        dialler = Dialler(self._config, dispatcher, news.set)
        self._dispatcher, self._dialler = dispatcher, dialler
        try:
            await connect_to_one(self._seeds, dialler, dispatcher.connected, news, self._timeout_s)
        except BaseException:  # cancelled too: nobody will call `close`
            await self.close()
            raise

    async def close(self) -> None:
        """Close every connection. Calls under way end as refused, or as unknown if they were sent."""
        if self._dispatcher is not None:
            self._dispatcher.close()
        if self._dialler is not None:
            await self._dialler.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # -- what calls need

    async def _start(self, request: Request, partition: int, wait_s: float, *, local: bool) -> Call:
        dispatcher = self._open_dispatcher()
        if not self._gate.try_enter(_READ_ROOM):
            wait_s = await self._wait_for_room(_READ_ROOM, wait_s)
        return dispatcher.start(request, partition, timeout_s=wait_s, size=_READ_ROOM, local=local)

    async def _wait_for_room(self, size: int, wait_s: float) -> float:
        """Wait at the gate; what is left of `wait_s`, in seconds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_s
        await self._gate.enter(size, deadline)
        return max(0.0, deadline - loop.time())

    def _open_dispatcher(self) -> Dispatcher:
        if self._dispatcher is None:
            raise Unavailable("this client is not open: use `async with`, or `await client.open()`")
        self._dispatcher.check_usable()
        return self._dispatcher
