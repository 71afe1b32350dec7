"""`allsource verify`: a whole data directory is said to be whole, a damaged one is not."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from allsource.config.load import load_settings
from allsource.node.assembly import open_node_storage
from allsource.node.cli.app import run
from allsource.storage.model.chunks import pack_events
from allsource.storage.model.entry import EVENTS, make_entry
from allsource.storage.model.events import NewEvent
from allsource.storage.model.log import HardState, PartitionWrite
from allsource.storage.repository import open_repository
from allsource.storage.rocksdb.keys import entry_key
from allsource.storage.rocksdb.storage import RocksStorage
from tests.storage.logs import new_append


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The file of a cluster of one node that has stored five events and stopped."""
    path = tmp_path / "cluster.yaml"
    path.write_text(
        "cluster_name: t\nsecret: long enough\npartitions: 4\n"
        "nodes:\n  - {id: n1, host: 127.0.0.1, port: 7001, http_port: 8001, "
        f"data_dir: {tmp_path / 'n1'}}}\n"
    )
    storage = open_node_storage(load_settings(path), "n1")
    for index in range(1, 6):
        chunks = pack_events([NewEvent.json("T", index)])
        entry = make_entry(
            partition=2,
            index=index,
            term=1,
            kind=EVENTS,
            first_position=index,
            timestamp_us=index,
            appends=[new_append(("s", index, 0, chunks))],
        )
        storage.write([PartitionWrite(2, HardState(1, "n1", index), None, [entry])])
    storage.sync()
    storage.close()
    return path


def test_all_is_well(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", str(file), "--id", "n1"]) == 0
    assert capsys.readouterr().out == "n1: 4 partitions, 5 events: all is well\n"


def contents(path: Path) -> dict[str, bytes]:
    """All files but RocksDB's own log and the lock."""
    return {str(p): p.read_bytes() for p in path.rglob("*") if p.is_file() and not p.name.startswith("LO")}


def test_a_directory_is_checked_and_not_changed(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(tmp_path / "n1")
    assert run(["verify", "--data-dir", str(tmp_path / "n1")]) == 0
    assert "(node 'n1' of cluster" in (said := capsys.readouterr().out)
    assert said.endswith(": 4 partitions, 5 events: all is well\n")
    assert run(["verify", str(file), "--id", "n1"]) == 0
    assert contents(tmp_path / "n1") == before


def test_a_checkpoint(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    storage = open_node_storage(load_settings(file), "n1")
    assert isinstance(storage, RocksStorage)
    storage.checkpoint(tmp_path / "copy")
    storage.close()
    before = contents(tmp_path / "copy")
    assert run(["verify", "--data-dir", str(tmp_path / "copy"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["ok"], report["node"], report["faults"]) == (True, "n1", [])
    assert report["checkpoint"].startswith("20")
    assert [row["events"] for row in report["partitions"]] == [0, 0, 5, 0]
    assert contents(tmp_path / "copy") == before


def test_a_damaged_checkpoint(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    storage = open_node_storage(load_settings(file), "n1")
    assert isinstance(storage, RocksStorage)
    storage._database.events.delete(entry_key(2, 3))
    storage.checkpoint(tmp_path / "copy")
    storage.close()
    assert run(["verify", "--data-dir", str(tmp_path / "copy")]) == 1
    assert "take another checkpoint" in capsys.readouterr().out
    (tmp_path / "copy" / "db" / "CURRENT").unlink()
    assert run(["verify", "--data-dir", str(tmp_path / "copy"), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert not report["ok"]
    assert "missing or empty" in report["faults"][0]


async def test_a_repository(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "shop"
    async with open_repository(f"rocksdb://{path}") as events:
        await events.append_to_stream("s", [NewEvent.json("T", 1)])
        assert await asyncio.to_thread(run, ["verify", "--data-dir", str(path)]) == 1
        assert "directory_in_use" in capsys.readouterr().err
    assert await asyncio.to_thread(run, ["verify", "--data-dir", str(path)]) == 0
    assert capsys.readouterr().out == f"{path} (a repository): 32 partitions, 1 events: all is well\n"


def test_a_directory_that_is_none_of_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", "--data-dir", str(tmp_path)]) == 1
    assert "is not a data directory of allsource" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_one_thing_at_a_time(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["--data-dir", str(tmp_path / "n1")]
    for wrong in ([], [str(file)], ["--id", "n1"], [str(file), *data], [str(file), "--id", "n1", *data]):
        assert run(["verify", *wrong]) == 2
        assert "FILE and --id NODE, or --data-dir PATH" in capsys.readouterr().err


def test_a_node_that_was_never_started(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cluster.yaml"
    node = f"{{id: n1, host: 127.0.0.1, port: 7001, http_port: 8001, data_dir: {tmp_path / 'n1'}}}"
    path.write_text(f"cluster_name: t\nsecret: long enough\nnodes:\n  - {node}\n")
    for _ in range(2):
        assert run(["verify", str(path), "--id", "n1"]) == 2
        assert "never started" in capsys.readouterr().err
        (tmp_path / "n1").mkdir(exist_ok=True)
    assert list((tmp_path / "n1").iterdir()) == []


def test_a_missing_entry_is_found(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    storage = open_node_storage(load_settings(file), "n1")
    storage._database.events.delete(entry_key(2, 3))  # type: ignore[attr-defined]
    storage.close()
    assert run(["verify", str(file), "--id", "n1", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert not report["ok"]
    assert [row["partition"] for row in report["partitions"] if row["faults"]] == [2]


def test_a_running_node_is_left_alone(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    storage = open_node_storage(load_settings(file), "n1")
    assert run(["verify", str(file), "--id", "n1"]) == 1
    assert "directory_in_use" in capsys.readouterr().err
    storage.close()


def test_a_node_that_is_not_in_the_file(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", str(file), "--id", "n7"]) == 2
    assert "it has n1" in capsys.readouterr().err
