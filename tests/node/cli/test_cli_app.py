"""The command line's frame: every way to fail is a line and a status, never a traceback."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest

from allsource.config.load import load_settings
from allsource.node.cli import app, main
from allsource.node.cli.targets import DEFAULT_CONFIG, find_target
from allsource.storage.model.errors import NoMajority

CONFIG = Path(__file__).parents[3] / DEFAULT_CONFIG


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A command line whose commands can be replaced by ones that fail."""
    monkeypatch.delenv(app.TRACEBACK_VARIABLE, raising=False)
    return monkeypatch


def fails_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    @click.command()
    def broken() -> None:
        raise error

    monkeypatch.setattr(app.cli, "get_command", lambda ctx, name: broken)


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (NoMajority("two of three are down"), 1, "allsource: two of three are down [no_majority]"),
        (OSError(28, "No space left on device"), 1, "allsource: [Errno 28] No space left on device"),
        (click.UsageError("which cluster?"), 2, "allsource: which cluster?"),
        (click.ClickException("not today"), 1, "allsource: not today"),
    ],
)
def test_an_error_is_one_line_and_a_status(
    failing: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    status: int,
    line: str,
) -> None:
    fails_with(failing, error)
    assert app.run(["status"]) == status
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", line + "\n")


def test_a_defect_is_one_line_too_and_says_how_to_see_more(
    failing: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fails_with(failing, RuntimeError("a\nb"))
    assert app.run(["status"]) == app.DEFECT
    (line,) = capsys.readouterr().err.splitlines()
    assert "RuntimeError: a b" in line
    assert app.TRACEBACK_VARIABLE in line


def test_the_traceback_of_a_defect_can_be_had(failing: pytest.MonkeyPatch) -> None:
    fails_with(failing, RuntimeError("boom"))
    failing.setenv(app.TRACEBACK_VARIABLE, "1")
    with pytest.raises(RuntimeError, match="boom"):
        app.run(["status"])


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_an_interruption_is_silent(
    failing: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException
) -> None:
    fails_with(failing, error)
    assert app.run(["status"]) == app.INTERRUPTED
    assert capsys.readouterr().err.strip() == ""


def test_every_command_exists_and_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["--help"]) == 0
    page = capsys.readouterr().out
    for name in app._COMMANDS:
        assert app.run([name, "--help"]) == 0
        assert len(capsys.readouterr().out.splitlines()) > 3
        assert f"  {name} " in page


def test_no_arguments_show_the_help_and_fail(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run([]) == app.USAGE
    assert "Usage: allsource" in capsys.readouterr().err


def test_main_exits_with_the_status() -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["no-such-command"])
    assert exit_.value.code == app.USAGE


def test_config_check_prints_the_settings_in_force(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["config", "check", str(CONFIG)]) == 0
    said = capsys.readouterr().out
    assert "cluster_name: three-nodes" in said
    assert "heartbeat_interval: 100ms" in said


def test_config_check_tells_all_faults_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "faulty.yaml"
    file.write_text("cluster_name: x\nsecret: long-enough\nhartbeat: 3\npartitions: none\nnodes: []\n")
    assert app.run(["config", "check", str(file)]) == app.USAGE
    told = capsys.readouterr().err
    assert "hartbeat" in told
    assert "partitions" in told

    assert app.run(["config", "check", str(file), "--json"]) == app.USAGE
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is False
    assert {3, 4} <= {fault["line"] for fault in found["faults"]}


def test_config_check_refuses_a_dsn_that_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "c.yaml"
    head = (
        "cluster_name: x\nsecret: long-enough\nnodes: [{id: n1, host: 127.0.0.1, port: 1, http_port: 2}]\n"
    )
    for dsn, says in (
        ("nonsense://me:hunter2@x", "line 4: storage.dsn: found 23 characters; allowed: postgresql://"),
        ("postgresql://me:hunter2@db/x?schema=pg_mine", "storage.dsn: n1: 'pg_mine' cannot be a schema"),
        (f"postgresql://me:hunter2@db/x?schema={'s' * 61}", "cannot be a schema: 1 to 63 bytes"),
    ):
        file.write_text(f"{head}storage: {{backend: postgres, dsn: '{dsn}'}}\n")
        assert app.run(["config", "check", str(file)]) == app.USAGE
        told = capsys.readouterr().err
        assert says in told
        assert "hunter2" not in told


def test_config_check_warns_of_what_is_allowed_and_rarely_meant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "c.yaml"
    nodes = "".join(f"  - {{id: n{i}, host: 10.0.0.{i}, port: 1, http_port: 2}}\n" for i in (1, 2, 3))
    storage = "storage: {backend: postgres, dsn: 'postgresql://db/x'}\n"
    file.write_text(f"cluster_name: x\nsecret: long-enough\n{storage}nodes:\n{nodes}")
    file.chmod(0o644)
    assert app.run(["config", "check", str(file)]) == 0
    told = capsys.readouterr()
    assert "without independent failure" in told.out.splitlines()[0]
    assert f"chmod 600 {file}" in told.err
    assert app.run(["config", "check", str(file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"]
    assert len(found["warnings"]) == 2


def test_a_secret_can_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert [app.run(["config", "secret"]) for _ in range(2)] == [0, 0]
    one, other = capsys.readouterr().out.split()
    assert one != other
    assert len(one) == 43


def test_a_node_that_the_file_does_not_have_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["node", str(CONFIG), "--id", "n9"]) == app.USAGE
    assert "it has n1, n2, n3" in capsys.readouterr().err


def test_the_clients_key_can_be_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is the one that the commands themselves take from a file: clients may not have the other."""
    file = tmp_path / "derived.yaml"
    text = CONFIG.read_text()
    line = next(line for line in text.splitlines() if line.startswith("client_secret:"))
    file.write_text(text.replace(line, ""))
    for config in (CONFIG, file):
        assert app.run(["config", "client-secret", str(config)]) == 0
        shown = capsys.readouterr().out.strip()
        assert shown == find_target(config, (), None, 1.0).secret
        assert shown != load_settings(config).secret
    assert len(shown) == 64


def test_a_file_gives_all_addresses_and_the_secret() -> None:
    target = find_target(CONFIG, (), None, 2.0)
    assert len(target.addresses) == 3
    assert target.secret
    assert target.cluster_id
    assert target.timeout_s == 2.0


def test_a_node_stands_in_for_the_addresses_of_a_file() -> None:
    assert find_target(CONFIG, ("h:1",), None, 1.0).addresses == ("h:1",)


def test_the_secret_comes_from_a_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ALLSOURCE_SECRET", raising=False)
    with pytest.raises(click.UsageError, match="secret"):
        find_target(None, ("h:1",), None, 1.0)
    file = tmp_path / "secret"
    file.write_text("from-a-file\n")
    assert find_target(None, ("h:1",), file, 1.0).secret == "from-a-file"
    monkeypatch.setenv("ALLSOURCE_SECRET", "from-outside")
    assert find_target(None, ("h:1",), None, 1.0).secret == "from-outside"
    assert find_target(None, ("h:1",), None, 1.0).cluster_id == ""


def test_without_a_word_the_example_in_the_current_directory_is_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(CONFIG.parents[1])
    assert len(find_target(None, (), None, 1.0).addresses) == 3
    monkeypatch.chdir(tmp_path)
    with pytest.raises(click.UsageError, match="which cluster"):
        find_target(None, (), None, 1.0)
