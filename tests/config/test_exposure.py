"""Which files of a configuration let others read its secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from allsource.config.exposure import exposures, is_open_to_others
from tests.config.conftest import MINIMAL


def written(path: Path, text: str, mode: int) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(("mode", "is_told"), [(0o644, True), (0o640, True), (0o604, True), (0o600, False)])
def test_a_file_with_a_secret_in_it(tmp_path: Path, mode: int, is_told: bool) -> None:
    file = written(tmp_path / "c.yaml", MINIMAL, mode)
    found = exposures(file)
    assert len(found) == is_told
    assert all(f"{file} holds secret, and its mode {mode:04o}" in one for one in found)
    assert all(one.endswith(f"run: chmod 600 {file}") for one in found)


def test_a_file_whose_secret_is_elsewhere(tmp_path: Path) -> None:
    """The other file counts then, found from the folder of the first one."""
    key = written(tmp_path / "key", "battery staple", 0o644)
    file = written(tmp_path / "c.yaml", MINIMAL.replace("correct horse", "{file: key}"), 0o644)
    (found,) = exposures(file)
    assert f"{key} holds secret" in found
    key.chmod(0o400)
    assert exposures(file) == []
    key.unlink()
    assert exposures(file) == []


def test_a_password_of_the_database_is_a_secret_too(tmp_path: Path) -> None:
    text = MINIMAL.replace("correct horse", "{env: NAME}")
    storage = "storage: {backend: postgres, dsn: 'postgresql://me:hunter2@db/x'}\n"
    (found,) = exposures(written(tmp_path / "c.yaml", text + storage, 0o644))
    assert "holds storage.dsn" in found
    assert "hunter2" not in found
    (both,) = exposures(written(tmp_path / "d.yaml", MINIMAL + storage, 0o644))
    assert "holds secret and storage.dsn" in both
    assert exposures(written(tmp_path / "e.yaml", text + storage.replace(":hunter2", ""), 0o644)) == []


def test_the_examples_have_nothing_to_hide() -> None:
    for path in (Path(__file__).resolve().parents[2] / "config").glob("*.yaml"):
        assert exposures(path) == []


def test_a_file_that_is_none(tmp_path: Path) -> None:
    assert exposures(tmp_path / "missing") == []
    assert exposures(written(tmp_path / "c.yaml", "{{{", 0o644)) == []
    assert not is_open_to_others(tmp_path / "missing")
