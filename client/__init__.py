"""The client library: what users of a cluster import.

What lives here
    client       `Client`: the calls, asynchronous
    life         what stands behind them: opening, closing, where a call starts
    blocking     `BlockingClient`: the same for scripts and threads
    loop_thread  the thread behind it
    errors       how a call can end
    arguments    from a call's arguments to a request, or a refusal before anything is sent (pure)
    opening      waiting for the first node, and knowing when that has no point
    paging       reads over many pages
    unpacking    from a page as it came to events, within bounds
    calls        what the error of one attempt means for the whole call (pure)
    dispatch     carries calls to nodes until their deadline; one timer for all
    connection   one connection, a thin shell around the protocol's `ClientSession`
    dialler      keeps connections open
    routes, cluster_map, watch
                 who leads what, and how the client comes to know
    gate         how many calls may be on their way

What may not
    Nothing of the node, of storage backends or of consensus: it is installed in other people's
    services. It shares with the server only the protocol and the event types.

Trade-offs
    *Straight to the owner.* The client keeps the partition map and saves a hop; when the map is
    wrong, any node forwards, so that a stale map costs time and never correctness.

    *Same ids until the deadline.* An append that got no answer is sent again, elsewhere, with the same
    event ids, and the cluster answers it once. Only at the deadline does the caller hear
    `OutcomeUnknown`, and may itself go on in the same way.

    *No task and no timer per call.* Deadlines are exact to 20 ms in return.
"""

from allsource.client.blocking import BlockingClient
from allsource.client.client import Client
from allsource.client.errors import ConnectionRefused, UnreadableAnswer
from allsource.client.pages import PartitionEvents, StreamEvents, TagEvents
from allsource.cluster.protocol.requests import MarkState
from allsource.storage.model.answers import AppendedStream, AppendResult, StreamAppend, StreamInfo
from allsource.storage.model.entry import Mark
from allsource.storage.model.errors import (
    AllsourceError,
    EventIdConflict,
    InvalidRequest,
    MarkRefused,
    NoMajority,
    NoOwner,
    NotFound,
    OutcomeUnknown,
    QueueFull,
    Rejected,
    TooLarge,
    Unavailable,
    WrongExpectedTag,
    WrongExpectedVersion,
)
from allsource.storage.model.events import Event, NewEvent

__all__ = [
    "AllsourceError",
    "AppendResult",
    "AppendedStream",
    "BlockingClient",
    "Client",
    "ConnectionRefused",
    "Event",
    "EventIdConflict",
    "InvalidRequest",
    "Mark",
    "MarkRefused",
    "MarkState",
    "NewEvent",
    "NoMajority",
    "NoOwner",
    "NotFound",
    "OutcomeUnknown",
    "PartitionEvents",
    "QueueFull",
    "Rejected",
    "StreamAppend",
    "StreamEvents",
    "StreamInfo",
    "TagEvents",
    "TooLarge",
    "Unavailable",
    "UnreadableAnswer",
    "WrongExpectedTag",
    "WrongExpectedVersion",
]
