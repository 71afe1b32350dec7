"""A request on its way through this node, and the deadlines of all of them.

Thousands of requests are under way at once and nearly all are answered long before their deadline.
A timer, task or future for each would cost more than the work itself, so a request is one small
object, and deadlines are buckets of such objects that a single timer looks at.

A ticket also carries the one fact that the three outcomes hang on (contract, line 6): whether an
earlier or the present attempt may have put the append into some log.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from enum import Enum
from itertools import islice
from typing import Protocol

import structlog

from allsource.cluster.protocol.requests import (
    AppendRequest,
    AppendResult,
    ReadRequest,
    Result,
)
from allsource.storage.model.errors import (
    AllsourceError,
    EventIdConflict,
    MarkRefused,
    NoOwner,
    OutcomeUnknown,
    Unavailable,
    WrongExpectedTag,
    WrongExpectedVersion,
)

Reply = Callable[[Result | AllsourceError], None]

EXPIRED_AT_ONCE = 2_000
"""Deadlines that one look answers; at 5 us each that is 10 ms."""

_BUCKET_SHIFT = 14
"""Deadlines within 2**14 us (16 ms) of each other share a bucket and are found together."""


class Source(Protocol):
    """The connection that a request came on, as far as its answer's size is concerned."""

    closing: bool

    def may_be_given_answers(self) -> bool:
        """Whether it takes what is sent to it. If not, `Reads.eased` is called when it does."""
        ...


REQUEST_OVERHEAD_BYTES = 512
"""About what a request takes beside its events: ticket, callback, place in a few tables."""
MARK_BYTES = 256
"""About what a mark takes in a request."""


class Stage(Enum):
    """Where a request waits: what its caller is told when the deadline comes first."""

    OWNER = "owner"
    """For somebody who leads the partition, or for that node's answer."""
    TOKEN = "token"
    """For the entry that its token names, at a replica which has not received it."""


class Ticket:
    """One request for one partition. `reply` is called exactly once, by `finish`.

    `passes_on`: a peer asked for it to be passed on to the leader.
    `local`: any replica may answer it. `min_index`: log index that a read's token names; 0 for none.
    `source`: None for a caller that has one request at a time (HTTP).

    `in_doubt`: an earlier attempt may have put the append into a log. `out`: the present attempt may
    have. Both only mean something for appends; a read leaves no trace.
    """

    __slots__ = (
        "bucket",
        "deadline_us",
        "deadlines",
        "forwarded",
        "in_doubt",
        "local",
        "min_index",
        "out",
        "partition",
        "passes_on",
        "reply",
        "request",
        "size",
        "source",
        "stage",
        "started_us",
    )

    def __init__(
        self,
        request: AppendRequest | ReadRequest,
        partition: int,
        started_us: int,
        deadline_us: int,
        forwarded: bool,
        reply: Reply,
        min_index: int = 0,
        source: Source | None = None,
        passes_on: bool = False,
    ) -> None:
        self.request = request
        self.partition = partition
        self.started_us = started_us
        self.deadline_us = deadline_us
        self.forwarded = forwarded
        self.reply: Reply | None = reply
        self.in_doubt = False
        self.out = False
        self.min_index = min_index
        self.source = source
        self.passes_on = passes_on
        self.stage = Stage.OWNER
        self.bucket: dict[Ticket, None] | None = None
        self.deadlines: Deadlines | None = None
        self.size = REQUEST_OVERHEAD_BYTES
        if isinstance(request, AppendRequest):
            self.local = False
            for part in request.parts:
                for chunk in part.chunks:
                    self.size += len(chunk.data)
            if request.marks:
                self.size += MARK_BYTES * len(request.marks)
        else:
            self.local = request.local

    def finish(self, result: Result | AllsourceError) -> None:
        """Answer, once; later calls (an answer that came after the deadline) do nothing.

        An append that this node sent twice may well meet its own first attempt: then it is no duplicate.
        """
        reply = self.reply
        if reply is None:
            return
        self.reply = None
        bucket = self.bucket
        if bucket is not None:
            del bucket[self]
            self.bucket = None
            deadlines = self.deadlines
            assert deadlines is not None
            deadlines.count -= 1
            deadlines.size -= self.size
        if self.in_doubt and isinstance(result, AppendResult) and result.duplicate:
            result = result._replace(duplicate=False)
        try:
            reply(result)
        except Exception:  # a door that fails to answer one caller is nothing to those who are next
            structlog.get_logger("allsource").error("an answer could not be given", exc_info=True)

    def refuse(self, error: AllsourceError) -> None:
        """Answer with an error of the present attempt, in the light of the earlier ones."""
        self.out = False
        self.finish(
            unknown_because(error) if self.in_doubt and not _settles(error, self.request) else error
        )

    def lost(self) -> None:
        """The present attempt ended without an answer: from now on the outcome is in doubt."""
        if self.out and isinstance(self.request, AppendRequest):
            self.in_doubt = True
        self.out = False

    def expire(self) -> AllsourceError:
        """The deadline has passed: answer so. Returns the answer."""
        error = self._too_late()
        self.finish(error)
        return error

    def _too_late(self) -> AllsourceError:
        partition = self.partition
        if self.in_doubt or (self.out and isinstance(self.request, AppendRequest)):
            return OutcomeUnknown(
                "the deadline passed before the append was confirmed; it may or may not have happened: "
                "retry with the same event ids",
                partition=partition,
            )
        if self.stage is Stage.TOKEN:
            return Unavailable(
                f"this replica of partition {partition} had not received the token's entry before the "
                "deadline; wait longer, or ask for a linearizable read",
                partition=partition,
                reason="behind",
            )
        return NoOwner(
            f"no owner of partition {partition} answered before the deadline; nothing happened, try again",
            partition=partition,
        )


def _settles(error: AllsourceError, request: AppendRequest | ReadRequest) -> bool:
    """Whether an owner's refusal also rules out that an earlier attempt happens yet, or has happened.

    A delayed duplicate of this request may still reach an owner. It cannot succeed if it asks for a
    version or number that the stream or tag has left behind, or for a mark to go back, nor with ids that
    are taken by other content. An attempt that has happened is known by its event ids, before anything
    else is looked at; only an append of marks alone has none, and its mark may have been moved on since.
    """
    if isinstance(error, WrongExpectedVersion | WrongExpectedTag):
        expected, actual = error.details.get("expected"), error.details.get("actual")
        if expected == "no_stream":
            expected = 0
        return isinstance(expected, int) and isinstance(actual, int) and expected < actual
    if isinstance(error, MarkRefused):
        return isinstance(request, AppendRequest) and bool(request.parts)
    return isinstance(error, EventIdConflict)


def unknown_because(error: AllsourceError) -> OutcomeUnknown:
    """The unknown outcome of an append whose retry met `error`."""
    if isinstance(error, OutcomeUnknown):
        return error
    return OutcomeUnknown(
        f"an earlier attempt may have happened, and the retry met: {error.message}; "
        "retry with the same event ids",
        reason=error.code,
    )


class Deadlines:
    """The tickets under way, by deadline. Times in microseconds of the caller's monotonic clock."""

    def __init__(self) -> None:
        self.count = 0
        """Tickets under way."""
        self.size = 0
        """Bytes of their requests, about."""
        self._buckets: dict[int, dict[Ticket, None]] = {}
        self._order: list[int] = []
        """A heap of the buckets' keys: the first is due first."""

    def add(self, ticket: Ticket) -> None:
        """Watch the ticket until it is finished."""
        key = ticket.deadline_us >> _BUCKET_SHIFT
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = {}
            heapq.heappush(self._order, key)
        bucket[ticket] = None
        ticket.bucket = bucket
        ticket.deadlines = self
        self.count += 1
        self.size += ticket.size

    def expire(self, now: int, at_most: int = EXPIRED_AT_ONCE) -> list[AllsourceError]:
        """Answer tickets whose deadline has passed (16 ms late if not many are); the answers.

        Not more than `at_most`, the oldest first: a hundred thousand may have waited for the same thing,
        and to tell them all in one turn would take longer than a node may be silent.
        """
        due, order = now >> _BUCKET_SHIFT, self._order
        errors: list[AllsourceError] = []
        while order and order[0] < due:
            bucket = self._buckets[order[0]]
            errors += [ticket.expire() for ticket in list(islice(bucket, at_most - len(errors)))]
            if bucket:
                return errors
            del self._buckets[heapq.heappop(order)]
        return errors

    def tickets(self) -> list[Ticket]:
        """All tickets under way."""
        return [ticket for bucket in self._buckets.values() for ticket in bucket]

    def __len__(self) -> int:
        return self.count
