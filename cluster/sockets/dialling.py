"""Reaching one address: one attempt at a time, and the next one after a wait.

Who dials is told of each attempt that came to nothing, and says when to dial again after a connection has
ended. How long to wait is decided in `protocol.redial`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable
from typing import Generic, NamedTuple, Protocol, TypeVar

from allsource.cluster.protocol.redial import Redial

RESOLVE_TIMEOUT_S = 2.0


class Dialled(Protocol):
    """What is needed of a connection that is being made."""

    def drop(self) -> None:
        """End it at once."""
        ...


ConnectionT = TypeVar("ConnectionT", bound=Dialled)


class Manner(NamedTuple):
    """How to dial."""

    jitter: Callable[[], float]
    """Numbers from 0 to 1, which spread the attempts."""
    connect_timeout_s: float
    """For the first answer of each address."""


class Dialling(Generic[ConnectionT]):
    """Attempts to reach one host and port.

    `make` makes the connection when the socket is connected; it has to call `opened` from its
    `connection_made`. `on_failed` is told why an attempt came to nothing, when the next one is on its way.
    """

    def __init__(
        self,
        address: tuple[str, int],
        make: Callable[[], asyncio.BaseProtocol],
        on_failed: Callable[[Exception], None],
        manner: Manner,
        *,
        name: str = "",
    ) -> None:
        self.trying: ConnectionT | None = None
        """The connection that was made, until who dials says that it is `over`."""
        self.redial = Redial()
        self._address = address
        self._make = make
        self._on_failed = on_failed
        self._manner = manner
        self._name = name or f"dial {address[0]}:{address[1]}"
        self._loop = asyncio.get_running_loop()
        self._found: list[str] = []
        self._attempt: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False

    @property
    def is_at_work(self) -> bool:
        """Whether an attempt is under way or about to be made."""
        is_dialling = self._attempt is not None and not self._attempt.done()
        return is_dialling or self.trying is not None or self._timer is not None

    def dial(self) -> None:
        """Begin an attempt now."""
        self._timer = None
        self._attempt = self._loop.create_task(self._dial(), name=self._name)

    def retry(self, *, at_once: bool = False) -> None:
        """Dial again when the wait is over. `at_once`: the last attempt has taken its time."""
        if not self._stopped:
            wait_s = self.redial.next_wait_s(self._manner.jitter(), at_once=at_once)
            self._timer = self._loop.call_later(wait_s, self.dial)

    def hurry(self) -> bool:
        """Do not wait for the next attempt: make it now. False if none was being waited for."""
        if self._timer is None:
            return False
        self._timer.cancel()
        self.redial.begin_anew()
        self.dial()
        return True

    def opened(self, connection: ConnectionT) -> None:
        """The socket is connected; the handshake begins."""
        self._abandon()
        self.trying = connection

    def over(self, connection: ConnectionT) -> bool:
        """The connection has ended, or stands and is not dialling's concern any more. False if that was not
        waited for: another one has been made since, or it was let go of."""
        if connection is not self.trying:
            return False
        self.trying = None
        return True

    def failed(self, error: Exception) -> None:
        """The attempt came to nothing."""
        if self._stopped:
            return
        self.redial.failed(error)
        self.retry(at_once=isinstance(error, TimeoutError))
        self._on_failed(error)

    async def stop(self) -> None:
        """Dial no more. What is `trying` is left to the caller."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None  # `hurry` must not dial now
        if self._attempt is not None:
            self._attempt.cancel()
            await asyncio.wait([self._attempt])
            if self._attempt.cancelled():
                self._abandon()

    async def _dial(self) -> None:
        try:
            await self._resolve()
            await connect(
                self._loop, self._make, self._found, self._address[1], self._manner.connect_timeout_s
            )
        except (OSError, ValueError) as error:  # TimeoutError is an OSError; a bad host name is the other
            self._abandon()
            self.failed(error)

    async def _resolve(self) -> None:
        """Look the host up. While names cannot be looked up (that may be behind the same cut), go on with
        what was found last, and do not wait long for more."""
        try:
            async with asyncio.timeout(
                self._manner.connect_timeout_s if self._found else RESOLVE_TIMEOUT_S
            ):
                self._found = await resolve(self._loop, *self._address)
        except (OSError, ValueError):
            if not self._found:
                raise

    def _abandon(self) -> None:
        """Let go of a connection that was made in the very turn in which its dialling was given up.

        Nothing more is heard of it: uvloop then closes the socket without calling `connection_lost`.
        """
        orphan, self.trying = self.trying, None
        if orphan is not None:
            orphan.drop()


async def resolve(loop: asyncio.AbstractEventLoop, host: str, port: int) -> list[str]:
    """The addresses of a host; of an address, itself."""
    try:
        return [str(ipaddress.ip_address(host))]
    except ValueError:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return [str(info[4][0]) for info in found]


async def connect(
    loop: asyncio.AbstractEventLoop,
    make: Callable[[], asyncio.BaseProtocol],
    addresses: list[str],
    port: int,
    timeout_s: float,
) -> None:
    """Connect to the first of these addresses that answers within its time.

    asyncio would do it too, but hides "connection refused" when a name has two addresses.
    """
    for address in addresses:
        try:
            async with asyncio.timeout(timeout_s):
                await loop.create_connection(make, address, port)
        except OSError:
            if address == addresses[-1]:
                raise
        else:
            return
