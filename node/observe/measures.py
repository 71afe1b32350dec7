"""What the node counts and times, in the words of the paths that record it.

One small face between the paths and `LockFreeMetrics`, so that neither the write path nor the reads
know the names of metrics, and what is counted for each outcome is said once.
"""

from __future__ import annotations

from allsource.node.observe import metrics as names
from allsource.node.observe.metrics import LockFreeMetrics
from allsource.storage.model.errors import (
    AllsourceError,
    MarkRefused,
    OutcomeUnknown,
    WrongExpectedTag,
    WrongExpectedVersion,
)


class Measures:
    """See the module's page. Times in microseconds."""

    def __init__(self, metrics: LockFreeMetrics) -> None:
        self._metrics = metrics

    def append_waited(self, took_us: int) -> None:
        """An append was committed so long after it had arrived."""
        self._metrics.observe(names.COMMIT, took_us * 1e-6)

    def appended(self, appends: int, events: int, size: int) -> None:
        """Appends that one advance of a commit index confirmed; `size` of their records in bytes."""
        metrics = self._metrics
        metrics.record_ingest_batch(events)
        metrics.count(names.APPENDS, appends)
        metrics.count(names.BYTES, size)

    def duplicate(self) -> None:
        """A retry got the answer of an append that had been committed before."""
        self._metrics.count(names.DUPLICATES)

    def refused(self, error: AllsourceError) -> None:
        """A request got an error."""
        metrics = self._metrics
        if isinstance(error, OutcomeUnknown):
            metrics.count(names.UNKNOWN_OUTCOMES)
            return
        if isinstance(error, WrongExpectedVersion | WrongExpectedTag | MarkRefused):
            metrics.count(names.CONFLICTS)
        metrics.count(names.REJECTIONS, label=error.code)

    def http_answered(self, status: int) -> None:
        """The HTTP door gave an answer with this status."""
        self._metrics.count(names.HTTP_ANSWERS, label=str(status))

    def read_took(self, took_us: int) -> None:
        """A read was answered here."""
        self._metrics.record_query(took_us * 1e-6)

    def forwarded(self) -> None:
        """A request was sent on to another node."""
        self._metrics.count(names.FORWARDS)

    def synced(self, took_us: int) -> None:
        """A sync of the storage returned."""
        self._metrics.observe(names.FSYNC, took_us * 1e-6)

    def beat_received(self) -> None:
        """A peer's heartbeat came."""
        self._metrics.count(names.HEARTBEATS, label="received")

    def beats_sent(self, n: int) -> None:
        """Heartbeats were sent."""
        self._metrics.count(names.HEARTBEATS, n, "sent")

    def suspected(self, state: str) -> None:
        """A peer came to look `suspect` or `down`."""
        self._metrics.count(names.SUSPICIONS, label=state)

    def leadership(self, change: str) -> None:
        """A partition's leadership was `gained` or `lost`."""
        self._metrics.count(names.LEADERSHIP_CHANGES, label=change)

    def failed(self) -> None:
        """Something happened that should not."""
        self._metrics.record_error()
