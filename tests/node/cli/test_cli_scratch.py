"""A cluster's copy for one command: what is in it, and what is left of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from allsource.config.load import load_settings
from allsource.node.cli.control.cluster import ClusterFault, write_config
from allsource.node.cli.control.scratch import Scratch

DSN = "postgresql://me:hunter2@127.0.0.1:1/events"


@pytest.fixture
def on_postgres(tmp_path: Path) -> Path:
    directory = tmp_path / "source"
    directory.mkdir()
    storage = {"backend": "postgres", "dsn": DSN, "write_buffer_bytes": "2MiB"}
    return write_config(directory, ["n1", "n2"], cluster_name="c", secret="long-enough", storage=storage)


@pytest.mark.parametrize("backend", ["memory", "rocksdb"])
def test_another_backend_leaves_the_server_of_the_file_alone(
    on_postgres: Path, backend: str, tmp_path: Path
) -> None:
    with Scratch(on_postgres, "test", backend=backend, within=tmp_path) as scratch:
        storage = load_settings(scratch.config).storage
        assert (storage.backend, storage.dsn, storage.write_buffer_bytes) == (backend, "", 2 << 20)
        assert scratch.config.parent == scratch.directory
    assert not scratch.directory.exists()


def test_what_is_kept_is_said_where(
    on_postgres: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Scratch(on_postgres, "test", backend="memory", within=tmp_path) as scratch:
        scratch.keep()
    assert scratch.config.exists()
    assert str(scratch.directory) in capsys.readouterr().err


def test_schemas_that_cannot_be_dropped_are_named(
    on_postgres: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Scratch(on_postgres, "test", within=tmp_path) as scratch:
        schemas = load_settings(scratch.config).storage.dsn.partition("schema=")[2]
        assert schemas.startswith("drill_")
    said = capsys.readouterr().err
    assert f"left behind, drop them yourself: {schemas}_n1, {schemas}_n2" in said
    assert "hunter2" not in said
    assert not scratch.directory.exists()


@pytest.mark.parametrize(
    ("variable", "value", "backend"),
    [("ALLSOURCE__STORAGE__DSN", DSN, None), ("ALLSOURCE__STORAGE__BACKEND", "postgres", "memory")],
)
def test_an_environment_that_would_beat_the_copy_is_refused(
    on_postgres: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
    backend: str | None,
) -> None:
    monkeypatch.setenv(variable, value)
    place = tmp_path / "place"
    place.mkdir()
    with pytest.raises(ClusterFault, match=f"unset {variable}"):
        Scratch(on_postgres, "test", backend=backend, within=place)
    assert list(place.iterdir()) == []
