"""`SyncedMark`: how far a database was certainly synced, kept in a file beside it."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

from allsource.storage.files.durable import explained, write_durably
from allsource.storage.model.errors import NO_COPY_HELPS, Corrupt


class SyncedMark:
    """How far the database was synced, kept beside it: what tells a torn tail from corruption.

    A write-ahead log that ends early looks the same whether the power failed in the middle of a record
    (harmless: nobody was told of it) or whether its end was damaged, cut or removed later. The mark is
    the sequence number that the last finished sync covered. It is written *after* the sync and not
    synced itself, so it may lag behind but never runs ahead: a database that ends before its mark has
    lost what was durable (RULES.md rule 17).
    """

    def __init__(self, path: Path) -> None:
        """Open the mark, creating it at 0; raises `Corrupt` if it cannot be what was written."""
        with explained(path.parent, "open the file SYNCED in"):
            if not path.exists():
                self.write(path, 0)
            self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            raw = os.pread(self._file, 64, 0)
        self.sequence = int.from_bytes(raw[:8], "big")
        if raw != self._packed(self.sequence):
            os.close(self._file)
            raise Corrupt(
                f"{path} is unreadable, so a damaged log could not be told from a clean one;"
                f" {NO_COPY_HELPS}"
            )

    @classmethod
    def write(cls, path: Path, sequence: int) -> None:
        """Make the mark of a database that holds everything up to `sequence`, durably."""
        write_durably(path, cls._packed(sequence))

    def advance(self, sequence: int) -> None:
        """Everything up to `sequence` has been synced. Any thread, one at a time."""
        os.pwrite(self._file, self._packed(sequence), 0)
        self.sequence = sequence

    def close(self) -> None:
        os.close(self._file)

    @classmethod
    def _packed(cls, sequence: int) -> bytes:
        raw = sequence.to_bytes(8, "big")
        return raw + zlib.crc32(raw).to_bytes(4, "big")
