"""What a request's handlers tell its connection, so that it knows what it is doing and what is held for
it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from aiohttp import web

_T = TypeVar("_T")


class Holder:
    """The connection of a request. This base keeps no account; a test's server has such connections."""

    __slots__ = ()

    def begun(self, has_body: bool) -> None:
        """A request's head is complete and a handler has it."""

    def room_for(self, size: int) -> bool:
        """Whether a body of so many bytes may be held."""
        return True

    def received(self) -> None:
        """The body is complete."""

    async def turn(self, size: int) -> None:
        """Return when the loop has a turn for something that takes as long as parsing so many bytes."""

    async def work(self, size: int, run: Callable[[], _T]) -> _T:
        """What `run` returns or raises: something that takes the longer, the larger `size` is, and touches
        nothing that the loop's thread changes. It may run in another thread."""
        return run()

    def hold_page(self, size: int) -> bool:
        """A page of events was read: hold so many bytes for it, if there is room."""
        return True

    def answering(self, size: int) -> None:
        """An answer of this size is being written; nothing else is held for the request any more."""

    def answered(self, *, is_last: bool) -> None:
        """The answer was written, as far as the socket took it; the last one if `is_last`."""


_NOBODY = Holder()


def holder_of(request: web.BaseRequest) -> Holder:
    """Who holds a request."""
    protocol = request.protocol
    return protocol if isinstance(protocol, Holder) else _NOBODY
