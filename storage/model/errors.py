"""Every error that a caller of allsource can meet, as one family.

::

    AllsourceError
    ├── Rejected                  it surely did not happen (definite)
    │   ├── InvalidRequest        the request breaks a documented rule; change it
    │   │   └── TooLarge          ... a size limit
    │   ├── WrongExpectedVersion  somebody else appended first; read, decide again
    │   ├── WrongExpectedTag      somebody else appended under the tag first; read, decide again
    │   ├── MarkRefused           the mark is already there or further, or of a higher generation
    │   ├── EventIdConflict       these event ids are already stored with other content
    │   ├── NotFound              no such stream
    │   ├── CheckpointsUnsupported this kind of storage makes no copies of itself
    │   ├── NotOwner              this node does not lead the partition; `owner` says who may
    │   └── Unavailable           try again later, the reason says what is missing
    │       ├── NoOwner           no owner is known (an election is under way, or the wait ran out)
    │       ├── NoMajority        too few replicas are up; nothing can be committed
    │       ├── QueueFull         the ingest queue is full (back-pressure)
    │       ├── Overloaded        too many uncommitted bytes, or the disk falls behind
    │       ├── DiskFull          the disk is (nearly) full; reads go on
    │       └── ShuttingDown      this node is leaving
    ├── OutcomeUnknown            it may or may not have happened; retry with the same event ids
    └── StorageFault              the data directory cannot be used; the message says what to do
        ├── DirectoryInUse        another process has it open
        ├── ForeignDirectory      it belongs to another cluster or node, or is not ours
        ├── FormatTooNew          a newer version of allsource wrote it
        ├── FormatTooOld          an older version wrote it, in a format that is not read any more
        ├── DiskRanFull           no room in the middle of a write: nothing more until it is opened anew
        └── Corrupt               a record fails its checksum, or records contradict each other

A few errors that never travel derive from these where they arise (`client.errors`,
`cluster.transport.server`).

Three outcomes and no fourth: committed (no error), `Rejected`, `OutcomeUnknown` (contract, line 6).
`to_wire`/`from_wire` carry an error across the peer protocol without losing its class or details.
"""

from __future__ import annotations

from typing import Any, ClassVar

PEERS_GO_ON = (
    "a node's peers hold the events and go on; they refuse an older copy of what it has, and an emptied one"
)
"""Ends a message about damage to one partition: why neither an older copy nor an empty directory helps."""
NO_COPY_HELPS = (
    "if this is a node's, leave the node stopped: its peers hold the events and go on, and they refuse an "
    "older copy of it and an emptied one; if it is a repository's, open its newest checkpoint"
)
"""Ends a message about damage to a whole store: what does help."""


class AllsourceError(Exception):
    """Base of the family.

    `code` is the stable name that programs test (also in JSON answers), `definite` says whether the
    request surely had no effect, `details` are JSON-able facts for the caller.
    """

    code: ClassVar[str] = "internal"
    definite: ClassVar[bool] = False

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details

    def to_wire(self) -> list[Any]:
        """`[code, message, details]`, ready for msgpack."""
        return [self.code, self.message, self.details]

    @staticmethod
    def from_wire(value: Any) -> AllsourceError:
        """The error that `to_wire` described; an unknown code becomes `OutcomeUnknown`."""
        match value:
            case [str() as code, str() as message, dict() as details]:
                cls = _BY_CODE.get(code, OutcomeUnknown)
                error = cls.__new__(cls)
                AllsourceError.__init__(error, message, **{str(k): v for k, v in details.items()})
                return error
        return OutcomeUnknown(f"unreadable error from a peer: {value!r}")


class Rejected(AllsourceError):
    """It surely did not happen."""

    code = "rejected"
    definite = True


class InvalidRequest(Rejected):
    """The request breaks a documented rule; sending it again unchanged will fail again."""

    code = "invalid"


class TooLarge(InvalidRequest):
    """A size limit is exceeded; `details` name the limit."""

    code = "too_large"


class WrongExpectedVersion(Rejected):
    """The stream is not at the version that the caller expected."""

    code = "wrong_expected_version"

    def __init__(self, stream: str, expected: str | int, actual: int) -> None:
        super().__init__(
            f"stream {stream!r}: expected {expected}, got {actual}; read the stream and decide again",
            stream=stream,
            expected=expected,
            actual=actual,
        )


class WrongExpectedTag(Rejected):
    """The tag's newest event is not the one that the caller expected."""

    code = "wrong_expected_tag"

    def __init__(self, tag: str, expected: int, actual: int) -> None:
        super().__init__(
            f"tag {tag!r}: expected number {expected}, got {actual}; read the tag and decide again",
            tag=tag,
            expected=expected,
            actual=actual,
        )


class MarkRefused(Rejected):
    """The mark is already at or behind its position, or belongs to a higher generation; `details` say where
    it is."""

    code = "mark_refused"

    def __init__(self, name: str, position: int, generation: int) -> None:
        super().__init__(
            f"mark {name!r} is at position {position} of generation {generation}: it only moves forward, "
            "and only for its newest generation",
            name=name,
            position=position,
            generation=generation,
        )


class EventIdConflict(Rejected):
    """The first event id is already stored, by an append with other content."""

    code = "event_id_conflict"


class NotFound(Rejected):
    """No such stream."""

    code = "not_found"


class NotOwner(Rejected):
    """This node does not lead the partition; `details["owner"]` is the node that does, or None."""

    code = "not_owner"


class Unavailable(Rejected):
    """Cannot be done now; nothing happened; the same request may succeed later."""

    code = "unavailable"


class NoOwner(Unavailable):
    """No owner of the partition is known."""

    code = "no_owner"


class NoMajority(Unavailable):
    """Too few replicas of the partition are up to commit anything."""

    code = "no_majority"


class QueueFull(Unavailable):
    """The bounded ingest queue is full."""

    code = "queue_full"


class Overloaded(Unavailable):
    """The partition has too many uncommitted bytes in flight, or the disk falls behind."""

    code = "overloaded"


class DiskFull(Unavailable):
    """The disk is full or nearly so; appends are refused before a version is assigned."""

    code = "disk_full"


class ShuttingDown(Unavailable):
    """The node is leaving; ask another one."""

    code = "shutting_down"


class CheckpointsUnsupported(Rejected):
    """This storage backend makes no checkpoints."""

    code = "not_supported"


class OutcomeUnknown(AllsourceError):
    """It may or may not have happened. A retry with the same event ids is safe and tells."""

    code = "outcome_unknown"
    definite = False


class StorageFault(AllsourceError):
    """The data directory or database cannot be used as it is."""

    code = "storage_fault"


class DirectoryInUse(StorageFault):
    """Another process holds the lock of the data directory."""

    code = "directory_in_use"


class ForeignDirectory(StorageFault):
    """The directory is not an allsource data directory, or is another cluster's or node's."""

    code = "foreign_directory"


class FormatTooNew(StorageFault):
    """A newer version of allsource wrote this directory."""

    code = "format_too_new"


class FormatTooOld(StorageFault):
    """An older version of allsource wrote this directory, in a format that is not read any more."""

    code = "format_too_old"


class DiskRanFull(StorageFault):
    """The disk was full in the middle of a write or a sync; the storage takes no more until it is opened
    anew. What was acknowledged before is stored."""

    code = "disk_ran_full"


class Corrupt(StorageFault):
    """Stored data fails its checksum or contradicts itself; it must not be voted or led with."""

    code = "corrupt"


def _family(cls: type[AllsourceError]) -> dict[str, type[AllsourceError]]:
    found = {cls.code: cls}
    for sub in cls.__subclasses__():
        found.update(_family(sub))
    return found


_BY_CODE = _family(AllsourceError)
