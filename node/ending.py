"""How a process ends at once when going on would do harm.

What it says on its way must not be able to stop it: a log line that cannot be written raised once, and the
process that had to end lived on (rule 31).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

EXIT_STORAGE = 73
"""The data directory cannot be used as it is (EX_CANTCREAT)."""


def end_process(status: int, say: Callable[[], object]) -> None:
    """End with this status, whatever becomes of `say`. Does not return (except in tests)."""
    try:
        with suppress(Exception):
            say()
    finally:
        os._exit(status)
