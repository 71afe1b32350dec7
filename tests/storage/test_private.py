"""What is stored is for its own user, whatever the umask says."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from allsource.storage.model.events import NewEvent
from allsource.storage.repository import open_repository


@pytest.fixture(autouse=True)
def _generous() -> Iterator[None]:
    """An umask that would let everybody in."""
    before = os.umask(0)
    yield
    os.umask(before)


def open_to_others(root: Path) -> list[str]:
    """What other users can reach below a directory, itself included; nothing, if they cannot enter it."""
    if not stat.S_IMODE(root.stat().st_mode) & 0o077:
        return []
    return [str(root), *(str(path) for path in root.rglob("*"))]


async def test_nobody_else_gets_into_a_repository_or_its_checkpoint(tmp_path: Path) -> None:
    async with open_repository(f"rocksdb://{tmp_path / 'shop'}") as events:
        await events.append_to_stream("s", [NewEvent.json("T", 1)])
        await events.checkpoint(tmp_path / "monday")
    assert open_to_others(tmp_path / "shop") == []
    assert open_to_others(tmp_path / "monday") == []
    for name in ("LOCK", "FORMAT", "SYNCED"):
        assert stat.S_IMODE((tmp_path / "shop" / name).stat().st_mode) == 0o600
