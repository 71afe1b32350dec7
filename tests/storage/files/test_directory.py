"""Data directories: whose, by whom, how far. Each refusal names what to do and changes nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from allsource.storage.files import directory
from allsource.storage.files.directory import DataDirectory, claim_directory
from allsource.storage.files.synced import SyncedMark
from allsource.storage.model.errors import (
    Corrupt,
    DirectoryInUse,
    DiskFull,
    ForeignDirectory,
    FormatTooNew,
    FormatTooOld,
    StorageFault,
)


def claim(path: Path, **changed: object) -> DataDirectory:
    wanted: dict = {"cluster_id": "c1", "node_id": "n1", "partitions": 32}
    return claim_directory(path, **{**wanted, **changed})


def make(path: Path) -> None:
    made = claim(path)
    made.database.mkdir()
    made.made()
    made.release()


def contents(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def test_an_empty_or_missing_directory_is_made(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "deep" / "down"):
        made = claim(path)
        assert made.is_new
        made.made()
        made.release()
        again = claim(path)
        assert not again.is_new
        assert again.format == made.format
        again.release()
    format = json.loads((tmp_path / "FORMAT").read_bytes())
    assert (format["magic"], format["format"], format["cluster_id"]) == ("allsource", 3, "c1")


def test_each_directory_is_another_replica(tmp_path: Path) -> None:
    make(tmp_path / "one")
    make(tmp_path / "other")
    ids = {json.loads((tmp_path / name / "FORMAT").read_bytes())["replica_id"] for name in ("one", "other")}
    assert len(ids) == 2


def test_a_fresh_file_systems_root_is_as_good_as_empty(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    make(tmp_path)


def test_a_half_made_directory_is_made_anew(tmp_path: Path) -> None:
    first = claim(tmp_path)
    first.database.mkdir()
    first.release()
    again = claim(tmp_path)
    assert again.is_new
    assert again.format.replica_id != first.format.replica_id
    again.release()


@pytest.mark.parametrize(
    "names", [["notes.txt"], ["db"], ["FORMAT.new", "notes.txt"], ["LOCK", "PG_VERSION"]]
)
def test_a_directory_with_other_files_is_refused(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).write_text("x")
    before = contents(tmp_path)
    with pytest.raises(ForeignDirectory, match="for a new cluster to an empty or new directory"):
        claim(tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("changed", "says"),
    [({"cluster_id": "c2"}, "cluster 'c1'"), ({"node_id": "n2"}, "node 'n1'"), ({"partitions": 16}, "32")],
)
def test_another_clusters_or_nodes_directory_is_refused(tmp_path: Path, changed: dict, says: str) -> None:
    make(tmp_path)
    before = (tmp_path / "FORMAT").read_bytes()
    with pytest.raises(ForeignDirectory, match=f"{says}.*correct data_dir"):
        claim(tmp_path, **changed)
    assert (tmp_path / "FORMAT").read_bytes() == before
    claim(tmp_path).release()


def test_a_newer_format_is_refused_whatever_else_it_holds(tmp_path: Path) -> None:
    (tmp_path / "FORMAT").write_text('{"magic": "allsource", "format": 5, "unheard_of": true}')
    with pytest.raises(FormatTooNew, match=r"format 5.*reads up to 4.*newer version"):
        claim(tmp_path)


@pytest.mark.parametrize("older", [1, 2])
def test_a_directory_of_log_format_1_is_refused_with_what_to_do(tmp_path: Path, older: int) -> None:
    content = f'{{"magic": "allsource", "format": {older}, "cluster_id": "c1", "node_id": "n1"}}'
    (tmp_path / "FORMAT").write_text(content)
    with pytest.raises(
        FormatTooOld, match=rf"format {older}.*nothing was changed.*with their ids, to a new"
    ):
        claim(tmp_path)
    assert (tmp_path / "FORMAT").read_text() == content
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("FORMAT", "LOCK")] == []


@pytest.mark.parametrize(
    "content",
    ["", "{", "null", '"allsource"', '{"magic": "other", "format": 3}', '{"magic": "allsource"}',
     '{"magic": "allsource", "format": "3"}', '{"magic": "allsource", "format": 3}', "\x00\x01"],
)  # fmt: skip
def test_an_unreadable_format_is_corrupt(tmp_path: Path, content: str) -> None:
    (tmp_path / "FORMAT").write_text(content)
    with pytest.raises(Corrupt, match="FORMAT"):
        claim(tmp_path)


def test_a_claimed_directory_is_in_use(tmp_path: Path) -> None:
    first = claim(tmp_path)
    with pytest.raises(DirectoryInUse, match=f"process {os.getpid()}"):
        claim(tmp_path)
    first.release()
    claim(tmp_path).release()


def test_another_process_is_kept_out_and_a_dead_one_is_not(tmp_path: Path) -> None:
    make(tmp_path)
    code = (
        "import sys, pathlib\n"
        "from allsource.storage.files.directory import claim_directory\n"
        "kept = claim_directory(pathlib.Path(sys.argv[1]), cluster_id='c1', node_id='n1', partitions=32)\n"
        "print('claimed', flush=True)\n"
        "sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdin is not None
    with holder:
        assert holder.stdout.readline() == b"claimed\n"
        with pytest.raises(DirectoryInUse) as caught:
            claim(tmp_path)
        assert caught.value.details["pid"] == str(holder.pid)
        holder.kill()
        holder.wait(20)
    claim(tmp_path).release()


def test_a_path_that_is_no_directory_is_explained(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    for path in (file, file / "below"):
        with pytest.raises(StorageFault, match="may read and write, or choose another data_dir"):
            claim(path)


def test_missing_permissions_are_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(directory.os, "open", refuse)
    with pytest.raises(StorageFault, match="Permission denied; make it a directory that this user may"):
        claim(tmp_path)


def test_a_full_disk_keeps_no_lock(tmp_path: Path) -> None:
    make(tmp_path)

    def refuse(*args: object) -> int:
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(directory.os, "pwrite", refuse)
        with pytest.raises(DiskFull, match="the disk is full"):
            claim(tmp_path)
    claim(tmp_path).release()


def test_a_directory_with_checkpoints_and_nothing_else_is_made(tmp_path: Path) -> None:
    """Its owner removed a store and kept the copies."""
    (tmp_path / "checkpoints" / "old").mkdir(parents=True)
    make(tmp_path)


def test_a_mark_in_the_wrong_format_is_corrupt(tmp_path: Path) -> None:
    make(tmp_path)
    format = json.loads((tmp_path / "FORMAT").read_bytes())
    mark = {"id": "i", "taken": "t", "incarnation": 1}
    for wrong in (
        {**format, "format": 4},
        {**format, "checkpoint": mark},
        {**format, "format": 4, "checkpoint": {**mark, "more": 1}},
        {**format, "format": 4, "checkpoint": None},
    ):
        (tmp_path / "FORMAT").write_text(json.dumps(wrong))
        with pytest.raises(Corrupt, match="lacks or has unknown fields"):
            claim(tmp_path)


def test_the_mark_is_remembered(tmp_path: Path) -> None:
    mark = SyncedMark(tmp_path / "SYNCED")
    assert mark.sequence == 0
    mark.advance(2**40 + 7)
    mark.advance(2**40 + 9)
    mark.close()
    mark = SyncedMark(tmp_path / "SYNCED")
    assert mark.sequence == 2**40 + 9
    mark.close()


@pytest.mark.parametrize("damage", [b"", b"\x00" * 12, b"\x00" * 13, b"garbage in here"])
def test_an_unreadable_mark_is_corrupt(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "SYNCED").write_bytes(damage)
    with pytest.raises(Corrupt, match="SYNCED"):
        SyncedMark(tmp_path / "SYNCED")
