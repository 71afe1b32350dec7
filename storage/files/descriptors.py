"""How many file descriptors of a process the database may have open: one number for two users.

`rocksdb.options` tells RocksDB, and `cluster.budgets.descriptors` leaves as many out when it counts what is
there for sockets.
"""

from __future__ import annotations

DATABASE_FILES_MIN = 64
DATABASE_FILES_MAX = 65_536
"""More than the files of terabytes; each open one costs some memory."""


def database_files(descriptors: int) -> int:
    """RocksDB's share of so many descriptors: a quarter."""
    return max(DATABASE_FILES_MIN, min(descriptors // 4, DATABASE_FILES_MAX))
