"""`allsource verify`: a whole data directory is said to be whole, a damaged one is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from allsource.config.load import load_settings
from allsource.node.cli.app import run
from allsource.node.daemon import open_node_storage
from allsource.storage.entry import EVENTS, Part, make_entry
from allsource.storage.events import NewEvent, encode_blob
from allsource.storage.interface import HardState, PartitionWrite
from allsource.storage.keys import entry_key


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
        event = NewEvent.json("T", index)
        part = Part("s", index, 1, event.id, encode_blob([event]))
        entry = make_entry(
            partition=2,
            index=index,
            term=1,
            kind=EVENTS,
            first_position=index,
            timestamp_us=index,
            parts=(part,),
        )
        storage.write([PartitionWrite(2, HardState(1, "n1", index), None, [entry])])
    storage.sync()
    storage.close()
    return path


def test_all_is_well(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", str(file), "--id", "n1"]) == 0
    assert capsys.readouterr().out == "n1: 4 partitions, 5 events: all is well\n"


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
