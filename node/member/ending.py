"""How a process ends at once when going on would do harm.

What it says on its way must not be able to stop it: a log line that cannot be written raised once, and the
process that had to end lived on (rule 31).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

from structlog.typing import FilteringBoundLogger

from allsource.storage.model.errors import Corrupt, DiskRanFull

EXIT_BROKEN = 70
"""The node found its own state wrong (EX_SOFTWARE)."""
EXIT_STORAGE = 73
"""The data directory cannot be used as it is (EX_CANTCREAT)."""
EXIT_SYNC_FAILED = 74
"""A sync failed (EX_IOERR)."""


def end_process(status: int, say: Callable[[], object]) -> None:
    """End with this status, whatever becomes of `say`. Does not return (except in tests)."""
    try:
        with suppress(Exception):
            say()
    finally:
        os._exit(status)


def end_for_failed_sync(log: FilteringBoundLogger, error: BaseException) -> None:
    """A failed sync is never tried again (rule 16)."""
    if isinstance(error, DiskRanFull):
        _end_for_full_disk(log, error)
        return
    end_process(
        EXIT_SYNC_FAILED,
        lambda: log.critical(
            "the disk failed to sync; this process ends at once, since nothing it holds can be trusted "
            "to be stored. Check the disk, then start the node again",
            error=repr(error),
        ),
    )


def end_for_broken_state(log: FilteringBoundLogger, error: Exception) -> None:
    """An assertion of ours failed, or the storage did."""
    if isinstance(error, DiskRanFull):
        _end_for_full_disk(log, error)
    elif isinstance(error, Corrupt):
        end_process(
            EXIT_STORAGE,
            lambda: log.critical(
                "this node ends at once: its database met damage and takes no write any more. Start it "
                "again: it then looks through all that it stores, and goes on without the partitions that "
                "are damaged",
                found=error.message,
            ),
        )
    else:
        end_process(
            EXIT_BROKEN,
            lambda: log.critical(
                "this node found its own state wrong and ends at once, before it does harm; `allsource "
                "verify` checks its data, and the others go on without it",
                exc_info=error,
            ),
        )


def _end_for_full_disk(log: FilteringBoundLogger, error: DiskRanFull) -> None:
    end_process(
        EXIT_STORAGE,
        lambda: log.critical("this node ends at once: its disk ran full", reason=error.message),
    )
