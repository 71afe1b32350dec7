"""What a call of the client can raise, and the two errors that only a client can meet.

Every call ends in one of three ways: it returns (committed, or read), it raises a `Rejected` (it surely
had no effect; the class says whether to change the request or to try again later), or it raises
`OutcomeUnknown` (an append that may have happened: appending the same events again, with the same ids,
is safe and tells). Reads have no effect, so they never end unknown. `storage.model.errors` draws the
family.
"""

from __future__ import annotations

from allsource.storage.model.errors import Rejected, Unavailable


class ConnectionRefused(Rejected):
    """The cluster will not talk to this client (wrong secret, wrong cluster, other protocol version).

    `details["reason"]` is the protocol's code for it; trying again unchanged will fail again.
    """

    code = "connection_refused"


class UnreadableAnswer(Unavailable):
    """A node answered a read with bytes that are not events; its connection was closed."""

    code = "unreadable_answer"
