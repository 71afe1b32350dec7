"""One call and its fate: what an error of one attempt means for the whole call.

A call may take several attempts, on several nodes. What the caller hears at the end must be true of
all of them: after one attempt whose outcome is unknown, the refusal of the next one no longer proves
that nothing happened. This module decides; `dispatch` carries out.
"""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import Any, Protocol

from allsource.cluster.protocol.redial import backoff_s
from allsource.cluster.protocol.requests import (
    AppendRequest,
    AppendResult,
    ClusterView,
    DescribeCluster,
    MarkState,
    PartitionPage,
    ReadMark,
    ReadPartition,
    ReadStream,
    ReadTag,
    Request,
    Result,
    StreamPage,
    TagPage,
)
from allsource.storage.model.errors import (
    AllsourceError,
    MarkRefused,
    NoMajority,
    NoOwner,
    NotOwner,
    OutcomeUnknown,
    Rejected,
    ShuttingDown,
    Unavailable,
    WrongExpectedTag,
    WrongExpectedVersion,
)

ANSWER_OF: dict[type[Request], type[Any]] = {
    AppendRequest: AppendResult,
    ReadStream: StreamPage,
    ReadPartition: PartitionPage,
    ReadTag: TagPage,
    ReadMark: MarkState,
    DescribeCluster: ClusterView,
}

_BACKOFF_MAX_S = 0.25


class Next(Enum):
    """What becomes of a call after an attempt failed."""

    SETTLE = "the error is the call's answer"
    ELSEWHERE = "try another node at once"
    LATER = "try again after a short wait, or as soon as an owner is known"


class Carrier(Protocol):
    """The connection on which an attempt is under way: all that a call needs of it."""

    def drop(self, error: Exception) -> None:
        """End it: what it brought cannot be read."""
        ...


class Call:
    """A request on its way, through all its attempts.

    `deadline` is a time of the event loop's clock in seconds. `future` gets the result or the error,
    once. `partition` is -1 when any node can answer.
    """

    __slots__ = (
        "answer",
        "attempts",
        "connection",
        "deadline",
        "future",
        "id",
        "last_error",
        "local",
        "may_have_happened",
        "partition",
        "pinned",
        "refused_by",
        "request",
        "retry_at",
        "sent_at",
        "size",
        "writes",
    )

    def __init__(
        self,
        id: int,
        request: Request,
        partition: int,
        local: bool,
        size: int,
        deadline: float,
        future: asyncio.Future[Any],
    ) -> None:
        self.id = id
        self.request = request
        self.answer = ANSWER_OF[type(request)]
        self.writes = self.answer is AppendResult
        self.partition = partition
        self.local = local
        self.size = size
        self.deadline = deadline
        self.future = future
        self.connection: Carrier | None = None
        """Where the current attempt is under way."""
        self.sent_at = 0.0
        """When the current attempt's bytes were handed to the socket; 0: not yet."""
        self.retry_at = 0.0
        """When to try again, while no attempt is under way."""
        self.attempts = 0
        self.pinned = False
        """Meant for one node: never sent to another."""
        self.may_have_happened = False
        """An append of which an earlier attempt was sent and not answered."""
        self.refused_by: set[str] | None = None
        """Nodes that see no majority."""
        self.last_error: AllsourceError | None = None

    def lose_attempt(self) -> None:
        """The current attempt will get no answer: its connection is gone, or its node is silent."""
        if self.writes and self.sent_at:
            self.may_have_happened = True
        self.connection = None
        self.sent_at = 0.0

    def own(self, result: Result | AllsourceError) -> Result | AllsourceError:
        """The result as the caller should see it: an append that was answered as a duplicate is one only
        if no earlier attempt of this very call may have stored it."""
        if self.may_have_happened and isinstance(result, AppendResult) and result.duplicate:
            return result._replace(duplicate=False)
        return result

    def backoff_s(self, jitter: float) -> float:
        """How long to wait before the next attempt; `jitter` is in [0, 1)."""
        return backoff_s(self.attempts + 1, jitter, _BACKOFF_MAX_S)


def judge(call: Call, error: AllsourceError, node_id: str) -> Next:
    """What to do after `node_id` answered the current attempt with `error`. Updates the call."""
    call.last_error = error
    match error:
        case NotOwner():
            return Next.ELSEWHERE
        case NoMajority():
            # One node may be cut off from a majority that is well: ask the others before giving up.
            call.refused_by = (call.refused_by or set()) | {node_id}
            return Next.ELSEWHERE
        case ShuttingDown():
            return Next.ELSEWHERE
        case OutcomeUnknown():
            call.may_have_happened |= call.writes
            return Next.LATER
        case Unavailable():
            return Next.LATER
        case WrongExpectedVersion() | WrongExpectedTag() | MarkRefused():
            return Next.SETTLE if not call.may_have_happened or settles(call.request, error) else Next.LATER
        case _:
            return Next.SETTLE


def settles(request: Request, error: WrongExpectedVersion | WrongExpectedTag | MarkRefused) -> bool:
    """Whether an append's refusal also proves that no earlier attempt of it has happened, or can yet.

    Had one happened, its event ids would be known, and the answer would be the first one's. As to what is
    still on its way: versions, a tag's numbers and marks only grow. What is past the expected number stays
    so, and a mark that is not moved now never will be. A stream that has not reached the expected version
    may, and a delayed attempt would then be accepted. An append of marks alone has no ids: its refusal does
    not tell whether it had moved them before somebody else did.
    """
    if isinstance(error, MarkRefused):
        return isinstance(request, AppendRequest) and bool(request.parts)
    expected, actual = error.details.get("expected"), error.details.get("actual")
    if expected == "no_stream":
        expected = 0
    return isinstance(expected, int) and isinstance(actual, int) and actual > expected


def error_at_deadline(call: Call) -> AllsourceError:
    """What to tell the caller when time is up: unknown if anything may have happened, else why not."""
    if call.may_have_happened or (call.writes and call.sent_at):
        return OutcomeUnknown(
            "no answer in time: the append may or may not have happened; "
            "append the same events (with the same ids) again to find out"
        )
    error = call.last_error
    if isinstance(error, Rejected) and not isinstance(error, NotOwner):
        return error
    if call.partition < 0 or not call.writes:
        return Unavailable("no node answered in time; nothing was changed")
    return NoOwner(
        f"no owner of partition {call.partition} could be reached in time; nothing was appended",
        partition=call.partition,
    )
