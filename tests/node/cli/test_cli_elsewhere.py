"""Data below the current directory, where a relative `data_dir` used to be looked for."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from allsource.config.load import load_settings
from allsource.node.cli.app import run
from allsource.node.cli.elsewhere import misplaced
from allsource.storage.files.directory import claim_directory

TEXT = """\
cluster_name: shop
secret: only for this test
nodes:
  - {id: n1, host: 127.0.0.1, port: 1, http_port: 2}
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration file in a folder of its own, beside the current directory."""
    (tmp_path / "here").mkdir()
    (tmp_path / "etc").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    path = tmp_path / "etc" / "shop.yaml"
    path.write_text(TEXT)
    return path


def put_data(directory: Path, cluster_id: str, node_id: str = "n1") -> None:
    claimed = claim_directory(directory, cluster_id=cluster_id, node_id=node_id, partitions=32)
    claimed.made()
    claimed.release()


@pytest.mark.parametrize("command", [["node", "--id", "n1"], ["launch"], ["verify", "--id", "n1"]])
def test_nothing_begins_empty_while_its_events_are_here(
    file: Path, tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The message has the commands that put it right, and they do."""
    settings = load_settings(file)
    put_data(tmp_path / "here/data/shop/n1", settings.cluster_id)
    assert run([command[0], str(file), *command[1:]]) == 73
    said = capsys.readouterr().err
    assert str(tmp_path / "here/data/shop/n1") in said
    assert not (tmp_path / "etc/data").exists()
    (move,) = [line.strip() for line in said.splitlines() if " mv " in line]
    subprocess.run(move, shell=True, check=True)
    assert shlex.split(move)[-1] == str(tmp_path / "etc/data/shop/n1")
    assert misplaced(settings, file, "n1", Path.cwd()) is None
    assert (tmp_path / "etc/data/shop/n1/FORMAT").exists()


def test_an_empty_directory_in_the_way_is_no_trap(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`mv` into a directory that exists would put the data one level too deep."""
    put_data(tmp_path / "here/data/shop/n1", load_settings(file).cluster_id)
    (tmp_path / "etc/data/shop/n1").mkdir(parents=True)
    assert run(["node", str(file), "--id", "n1"]) == 73
    (move,) = [line for line in capsys.readouterr().err.splitlines() if " mv " in line]
    subprocess.run(move, shell=True, check=True)
    assert (tmp_path / "etc/data/shop/n1/FORMAT").exists()


def test_what_is_of_others_is_no_reason(file: Path, tmp_path: Path) -> None:
    settings = load_settings(file)
    assert misplaced(settings, file, "n1", Path.cwd()) is None
    put_data(tmp_path / "here/data/shop/n1", "another cluster")
    assert misplaced(settings, file, "n1", Path.cwd()) is None


def test_data_at_its_place_is_enough(file: Path, tmp_path: Path) -> None:
    settings = load_settings(file)
    put_data(tmp_path / "here/data/shop/n1", settings.cluster_id)
    put_data(tmp_path / "etc/data/shop/n1", settings.cluster_id)
    assert misplaced(settings, file, "n1", Path.cwd()) is None
