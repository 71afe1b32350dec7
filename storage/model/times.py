"""Times as people use them, beside the microseconds that are stored."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache

from allsource.storage.model.arguments import shown
from allsource.storage.model.errors import InvalidRequest

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LAST_US = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND


def as_datetime(microseconds: int) -> datetime:
    """Microseconds since 1970 as a time in UTC; later than the year 9999 becomes the end of that year."""
    return _EPOCH + timedelta(microseconds=min(microseconds, _LAST_US))


def as_microseconds(moment: datetime) -> int:
    """A time as whole microseconds since 1970; raises `InvalidRequest` if it has no time zone."""
    if not isinstance(moment, datetime):
        raise InvalidRequest(f"a time is a datetime, not {shown(moment)}")
    if moment.tzinfo is None:
        raise InvalidRequest("a time needs its time zone, for example datetime.now(UTC)")
    return (moment - _EPOCH) // _MICROSECOND


def rfc3339(timestamp_us: int) -> str:
    """A time in UTC with microseconds, like `2026-01-31T12:00:00.000001Z`."""
    seconds, microseconds = divmod(timestamp_us, 1_000_000)
    return f"{_second(seconds)}.{microseconds:06d}Z"


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    return as_datetime(seconds * 1_000_000).strftime("%Y-%m-%dT%H:%M:%S")
