"""The server's handler: one line for each thing that can come in."""

from __future__ import annotations

from functools import partial
from typing import Protocol

from allsource.cluster.consensus.messages import Beat, Message
from allsource.cluster.protocol.requests import Request, Result
from allsource.node.part import Part
from allsource.storage.model.errors import AllsourceError


class Connection(Protocol):
    """The part of a server connection that answers go to."""

    closing: bool

    def may_be_given_answers(self) -> bool: ...

    def reply(self, request_id: int, result: Result | AllsourceError) -> None: ...


class WireDoor:
    """See the room's page. What peers say of consensus before this node takes part is dropped by its
    part."""

    def __init__(self, part: Part) -> None:
        self._part = part

    def request(
        self, connection: Connection, request_id: int, timeout_ms: int, request: Request, forwarded: bool
    ) -> None:
        """A request of a client, or (`forwarded`) of a peer."""
        self._part.now.submit(
            request,
            timeout_ms=timeout_ms,
            forwarded=forwarded,
            reply=partial(connection.reply, request_id),
            source=connection,
        )

    def eased(self, connection: Connection) -> None:
        """A connection takes answers again, or has ended."""
        self._part.now.eased(connection)

    def messages(self, peer: str, messages: list[Message]) -> None:
        """Consensus messages of a peer, in order."""
        self._part.now.messages(peer, messages)

    def beat(self, peer: str, beat: Beat) -> None:
        """A peer's heartbeat."""
        self._part.now.beat(peer, beat)

    def lost(self, peer: str) -> None:
        """EOF on a connection that a peer had opened."""
        self._part.now.lost(peer)
