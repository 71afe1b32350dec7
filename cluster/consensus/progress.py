"""What a leader knows of one follower, and how much it may have under way to it.

PROBE: the leader does not know where the follower's log agrees with its own, so it keeps one message
in flight. REPLICATE: it knows, and streams a window of messages and bytes ahead of the replies
(rule 21). A refusal, a new connection and silence lead back to PROBE. As in etcd/raft's
`tracker/progress.go`, whose states these are (its third, SNAPSHOT, has no use here: the log is never
compacted).
"""

from __future__ import annotations

from collections import deque
from typing import Final, Literal, NamedTuple

PROBE: Final = "probe"
REPLICATE: Final = "replicate"
State = Literal["probe", "replicate"]


class _Sent(NamedTuple):
    """A message with entries that has no answer yet."""

    last_index: int
    size: int
    at_us: int


class Progress:
    """One follower, seen from the leader.

    `match`: highest index known to be durable there and equal. `next`: first index to send.
    `contact_us`: when it last answered in our term, or a beat of it said that it follows us (rule 11,
    CheckQuorum). `arrived`: the end of its log by its own beats, synced or not.
    """

    __slots__ = (
        "_inflight",
        "_inflight_bytes",
        "arrived",
        "commit_sent",
        "contact_us",
        "match",
        "next",
        "probe_sent_us",
        "state",
    )

    def __init__(self, next_index: int, now: int) -> None:
        self.match = 0
        self.arrived = 0
        self.next = next_index
        self.state: State = PROBE
        self.contact_us = now
        self.commit_sent = 0
        self.probe_sent_us: int | None = None
        self._inflight: deque[_Sent] = deque()
        self._inflight_bytes = 0

    def may_send(self, messages_max: int, bytes_max: int) -> bool:
        """Whether the window has room."""
        if self.state == PROBE:
            return self.probe_sent_us is None
        return len(self._inflight) < messages_max and self._inflight_bytes < bytes_max

    def sent(self, last_index: int, size: int, now: int) -> None:
        """Entries up to `last_index` (`size` bytes) went out; without entries, a probe did."""
        if self.state == PROBE:
            self.probe_sent_us = now
            return
        if last_index >= self.next:
            self.next = last_index + 1
            self._inflight.append(_Sent(last_index, size, now))
            self._inflight_bytes += size

    def accepted(self, index: int) -> bool:
        """The follower holds everything up to `index`. True if that is news. What it said before our last
        probe is none, and does not end the probe (rule 34)."""
        while self._inflight and self._inflight[0].last_index <= index:
            self._inflight_bytes -= self._inflight.popleft().size
        news = index > self.match
        if news:
            self.match = index
        self.next = max(self.next, self.match + 1)
        if self.state == PROBE and index == self.match:
            self.state = REPLICATE
            self.probe_sent_us = None
            self.next = self.match + 1
        return news

    def refused(self, prev_index: int, next_index: int) -> bool:
        """The follower's log does not agree at `prev_index`; look from `next_index`.

        False if the refusal is late, of an append before the last probe or behind what it holds by now, and
        changes nothing (rule 34). Each of those would send a probe more, and each probe that is answered a
        window of appends, which a network that reorders has refused again (etcd/raft's `MaybeDecrTo`).
        """
        if prev_index != self.next - 1 if self.state == PROBE else not self.match < prev_index < self.next:
            return False
        self.probe(min(next_index, self.next))
        return True

    def probe(self, next_index: int | None = None) -> None:
        """Forget what is under way and find the agreement again."""
        self.state = PROBE
        self.probe_sent_us = None
        self._inflight.clear()
        self._inflight_bytes = 0
        if next_index is None:
            # Before the first answer `next` is our only guess of where the follower stands: keep it.
            next_index = self.match + 1 if self.match else self.next
        self.next = max(self.match + 1, next_index)

    @property
    def inflight_bytes(self) -> int:
        """Bytes of entries under way to it."""
        return self._inflight_bytes

    def forgive(self, gap: int, now: int) -> None:
        """This process slept for `gap`: the silence of that time was ours (rule 26). Nothing moves into
        the future: what arrived just before we noticed was heard now."""
        self.contact_us = min(now, self.contact_us + gap)
        if self.probe_sent_us is not None:
            self.probe_sent_us = min(now, self.probe_sent_us + gap)
        self._inflight = deque(sent._replace(at_us=min(now, sent.at_us + gap)) for sent in self._inflight)

    def silent_since(self) -> int | None:
        """When the oldest message without a reply was sent, None if nothing is under way."""
        if self.state == PROBE:
            return self.probe_sent_us
        return self._inflight[0].at_us if self._inflight else None
