"""Events as a client of another make might send them: nothing of them was checked."""

from __future__ import annotations

from allsource.storage.model.events import NewEvent, _made, new_event_id


def foreign_event(
    type: str = "T",
    data: bytes = b"null",
    metadata: bytes = b"",
    encoding: int = 0,
    id: bytes | None = None,
) -> NewEvent:
    """What `NewEvent` itself would refuse to be."""
    return _made(type, data, metadata, encoding, new_event_id() if id is None else id)
