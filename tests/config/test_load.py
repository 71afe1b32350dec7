"""From a file to settings, and every way in which a file can be wrong."""

from __future__ import annotations

import hmac
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from allsource.config.client_secret import derived_client_secret
from allsource.config.load import ConfigFault, Fault, load_settings
from allsource.config.schema import (
    HttpSettings,
    Limits,
    LogSettings,
    NodeSettings,
    Settings,
    StorageSettings,
    default_cluster_id,
)
from tests.config.conftest import MINIMAL, Faults, Load


def test_a_minimal_file_gets_every_default(load: Load, tmp_path: Path) -> None:
    assert load() == Settings(
        cluster_name="demo",
        cluster_id=default_cluster_id("demo"),
        secret="correct horse",
        client_secret=derived_client_secret("correct horse"),
        partitions=32,
        replication_factor=3,
        heartbeat_interval_ms=100,
        suspicion_timeout_ms=500,
        durability="fsync",
        limits=Limits(),
        storage=StorageSettings(),
        log=LogSettings(),
        nodes=tuple(
            NodeSettings(f"n{i}", "127.0.0.1", 7000 + i, 8000 + i, tmp_path / f"data/demo/n{i}")
            for i in (1, 2, 3)
        ),
    )


def test_every_key_is_read(load: Load) -> None:
    loaded = load(
        """\
        cluster_name: all
        cluster_id: 6B3F0F6E-3C0E-5D0A-9A53-0D2F6D1F2F11
        secret: '12345678'
        client_secret: for the clients
        partitions: 64
        replication_factor: 1
        heartbeat_interval: 50ms
        suspicion_timeout: 1s
        durability: os
        limits:
          event_bytes_max: 2MiB
          append_bytes_max: 10MiB
          append_events_max: 100
          frame_bytes_max: 20MiB
          queue_capacity: 10
          uncommitted_bytes_max: 64MiB
          request_timeout: 1m
          read_events_max: 50
          read_bytes_max: 1MiB
          disk_free_bytes_min: 0
          held_bytes_max: 40MiB
          checkpoints_max: 3
        storage:
          backend: postgres
          write_buffer_bytes: 8MiB
          block_cache_bytes: 16MiB
          background_jobs: 3
          dsn: postgresql://me@db/events
        http: {allowed_hosts: "events.example.org, *.internal"}
        log: {format: json, level: debug}
        nodes:
          - id: no
            host: db-1.example.org
            port: 1
            http_port: 65535
            data_dir: /var/lib/allsource
        """,
        whole=True,
    )
    assert loaded == Settings(
        cluster_name="all",
        cluster_id="6b3f0f6e-3c0e-5d0a-9a53-0d2f6d1f2f11",
        secret="12345678",
        client_secret="for the clients",
        partitions=64,
        replication_factor=1,
        heartbeat_interval_ms=50,
        suspicion_timeout_ms=1000,
        durability="os",
        limits=Limits(2 << 20, 10 << 20, 100, 20 << 20, 10, 64 << 20, 60_000, 50, 1 << 20, 0, 40 << 20, 3),
        storage=StorageSettings("postgres", 8 << 20, 16 << 20, 3, "postgresql://me@db/events"),
        http=HttpSettings(("events.example.org", "*.internal")),
        log=LogSettings("json", "debug"),
        nodes=(NodeSettings("no", "db-1.example.org", 1, 65535, Path("/var/lib/allsource")),),
    )


def test_settings_find_their_nodes(load: Load) -> None:
    loaded = load()
    assert loaded.node("n2").port == 7002
    with pytest.raises(LookupError, match="no node 'n9' in cluster 'demo': there are n1, n2, n3"):
        loaded.node("n9")


@pytest.mark.parametrize(("nodes", "factor"), [(1, 1), (2, 2), (3, 3), (4, 3), (8, 3)])
def test_the_default_replication_factor(load: Load, nodes: int, factor: int) -> None:
    lines = "".join(
        f"  - {{id: n{i}, host: a, port: {i}, http_port: {100 + i}}}\n" for i in range(1, nodes + 1)
    )
    loaded = load("cluster_name: a\nsecret: correct horse\nnodes:\n" + lines, whole=True)
    assert loaded.replication_factor == factor


def test_a_section_whose_keys_are_all_commented_out_is_empty(load: Load) -> None:
    assert load("limits:\n  # event_bytes_max: 2MiB\n").limits == Limits()


def test_text_is_taken_as_it_is_written(load: Load, minimal: str) -> None:
    """Not as YAML 1.1 would have it: `no` is a fine name for a node in Norway, and 010 is no 8."""
    assert load(minimal.replace("id: n1", "id: no"), whole=True).nodes[0].id == "no"
    assert load(minimal.replace("name: demo", "name: 007"), whole=True).cluster_name == "007"


def test_anchors_can_spare_repetition(load: Load, minimal: str) -> None:
    text = minimal.replace("{id: n1, host: 127.0.0.1", "{id: n1, host: &host 10.0.0.9")
    assert load(text.replace("host: 127.0.0.1", "host: *host"), whole=True).nodes[2].host == "10.0.0.9"


# -- secrets


def test_the_clients_key_is_derived_one_way_and_always_the_same(load: Load, minimal: str) -> None:
    """PROTOCOL.md says how, for clients in other languages: hold it to the letter."""
    settings = load(minimal, whole=True)
    expected = hmac.new(b"correct horse", b"allsource client secret\x01", "sha256").hexdigest()
    assert settings.client_secret == expected
    assert load(minimal + "client_secret: battery staple\n", whole=True).client_secret == "battery staple"
    from_outside = load(minimal, whole=True, env={"ALLSOURCE__CLIENT_SECRET": "battery staple"})
    assert from_outside.client_secret == "battery staple"


def test_a_secret_from_the_environment(load: Load, minimal: str) -> None:
    text = minimal.replace("correct horse", "{env: MY_SECRET}")
    assert load(text, whole=True, env={"MY_SECRET": "battery staple"}).secret == "battery staple"


def test_a_secret_from_a_file_loses_its_line_break(load: Load, minimal: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("battery staple\n")
    text = minimal.replace("correct horse", f"{{file: {tmp_path / 'secret'}}}")
    assert load(text, whole=True).secret == "battery staple"


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("{env: NOWHERE}", "the environment variable NOWHERE is not set"),
        ("{env: SHORT}", "found 3 characters; allowed: 8 to 1024 characters"),
        ("{file: /no/such/file}", "the file /no/such/file cannot be read: No such file or directory"),
        ("{vault: x}", "allowed: {env: NAME} or {file: PATH}"),
        ("{env: SHORT, file: x}", "allowed: {env: NAME} or {file: PATH}"),
        ("[a]", "found a list; allowed: 8 to 1024 characters"),
        ("shh", "found 3 characters; allowed: 8 to 1024 characters"),
    ],
)
def test_secrets_that_cannot_be_had(faults: Faults, minimal: str, written: str, message: str) -> None:
    (fault,) = faults(minimal.replace("correct horse", written), whole=True, env={"SHORT": "abc"})
    assert (fault.line, fault.key) == (2, "secret")
    assert message in fault.message


def test_secrets_are_never_repeated(load: Load, faults: Faults, minimal: str) -> None:
    (fault,) = faults(minimal.replace("correct horse", "hunter2"), whole=True)
    assert "hunter2" not in str(fault)
    loaded = load("storage: {backend: postgres, dsn: 'postgresql://me:hunter2@db/x'}\n")
    assert "correct horse" not in repr(loaded)
    assert "hunter2" not in repr(loaded)


# -- faults


def test_all_faults_are_told_at_once(faults: Faults) -> None:
    found = faults(
        """\
        cluster_name: three nodes
        heartbeat_interval: 1s
        partitions: 0
        partitions: 3
        event_bytes_max: 3
        limts: {a: 1}
        limits:
          append_bytes_max: 2MeB
          event_bytes_max:
        storage: rocksdb
        nodes:
          - {id: n1, host: 127.0.0.1, port: 7001, http_port: 8001}
          - {id: n1, host: localhost, port: 7001, http_port: 7001, prot: 3}
          - n3
          - {id: n4, host: 0.0.0.0, port: 99999, http_port: 8001}
        """,
        whole=True,
    )
    assert [(fault.line, fault.key) for fault in found] == [
        (1, "cluster_name"),
        (1, "secret"),
        (2, "suspicion_timeout"),
        (3, "partitions"),
        (4, "partitions"),
        (5, "event_bytes_max"),
        (6, "limts"),
        (8, "limits.append_bytes_max"),
        (9, "limits.event_bytes_max"),
        (10, "storage"),
        (13, "nodes[1].http_port"),
        (13, "nodes[1].id"),
        (13, "nodes[1].port"),
        (13, "nodes[1].prot"),
        (14, "nodes[2]"),
        (15, "nodes[3].host"),
        (15, "nodes[3].port"),
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            "partitions: many\n",
            Fault(7, "partitions", "found 'many'; allowed: a whole number from 1 to 1024"),
        ),
        ("durability: none\n", Fault(7, "durability", "found 'none'; allowed: fsync or os")),
        ("durability:\n", Fault(7, "durability", "found nothing; allowed: fsync or os")),
        ("durability: [os]\n", Fault(7, "durability", "found a list; allowed: fsync or os")),
        ("durability: {os: 1}\n", Fault(7, "durability", "found a mapping; allowed: fsync or os")),
        (
            "limits:\n  request_timeout: 1us\n",
            Fault(
                8,
                "limits.request_timeout",
                "found '1us'; allowed: a duration such as 100ms or 2s, from 100ms to 600s",
            ),
        ),
        ("log: loud\n", Fault(7, "log", "found 'loud'; allowed: a mapping of format, level")),
        ("durabilty: os\n", Fault(7, "durabilty", "unknown key; did you mean durability?")),
        (
            "heartbeat_interval_ms: 5\n",
            Fault(7, "heartbeat_interval_ms", "unknown key; did you mean heartbeat_interval?"),
        ),
        ("backend: memory\n", Fault(7, "backend", "unknown key here; did you mean storage.backend?")),
        ("port: 1\n", Fault(7, "port", "unknown key here; did you mean nodes[...].port?")),
        (
            "log: {colour: yes}\n",
            Fault(7, "log.colour", "unknown key; allowed: format, level"),
        ),
        ("secret: another one\n", Fault(7, "secret", "given twice; it is on line 2 already")),
        (
            "log: {level: info, level: info}\n",
            Fault(7, "log.level", "given twice; it is on line 7 already"),
        ),
        ("? [a, b]\n: c\n", Fault(7, "", "found a list or mapping as a key; allowed: words")),
        (
            "durability: !!python/name:os.system os\n",
            Fault(
                7,
                "durability",
                "found the tag tag:yaml.org,2002:python/name:os.system; tags have no meaning here",
            ),
        ),
        (
            "durability: !mine os\n",
            Fault(7, "durability", "found the tag !mine; tags have no meaning here"),
        ),
    ],
)
def test_one_fault(faults: Faults, text: str, fault: Fault) -> None:
    assert faults(text) == [fault]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "found nothing; allowed: a mapping of keys to values"),
        ("# only a comment\n", 1, "found nothing"),
        ("- a\n- b\n", 1, "found a list"),
        ("\njust words\n", 2, "found 'just words'"),
        ("a: [1\nb: 2\n", 2, "not valid YAML: while parsing a flow sequence, expected ',' or ']'"),
        ("a: 1\n  b: 2\n", 2, "not valid YAML"),
        ("a: 1\n\tb: 2\n", 2, "not valid YAML"),
        ("a: 'open\n", 2, "not valid YAML: while scanning a quoted scalar"),
        ("a: *nobody\n", 1, "not valid YAML: found undefined alias 'nobody'"),
        ("a: 1\n---\nb: 2\n", 2, "not valid YAML: expected a single document"),
        ("a: \x07\n", 0, "not valid YAML: the character #x0007 is not allowed"),
        ("[" * 5000, 0, "is nested too deeply"),
    ],
)
def test_files_that_are_no_configuration(faults: Faults, text: str, line: int, message: str) -> None:
    (fault,) = faults(text, whole=True)
    assert (fault.line, fault.key) == (line, "")
    assert message in fault.message


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigFault) as caught:
        load_settings(tmp_path / "nowhere.yaml", {})
    assert str(caught.value) == f"{tmp_path}/nowhere.yaml: cannot be read: No such file or directory"


def test_a_directory_and_binary_are_no_files_of_ours(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"a: \xff\xfe")
    for path, message in (
        (tmp_path, "Is a directory"),
        (tmp_path / "binary.yaml", "not UTF-8 text (byte 3)"),
    ):
        with pytest.raises(ConfigFault) as caught:
            load_settings(path, {})
        assert message in str(caught.value)


def test_a_list_that_holds_itself(faults: Faults) -> None:
    assert faults("log: &log {level: info, format: *log}\n")[0] == Fault(
        7, "log.format", "found an alias of what it is in"
    )


def test_aliases_cannot_blow_a_small_file_up(faults: Faults) -> None:
    """Each line doubles the one before: 2^60 values if they were copied."""
    lines = ["x0: &x0 [a, b]"] + [f"x{i}: &x{i} [*x{i - 1}, *x{i - 1}]" for i in range(1, 60)]
    assert len(faults("\n".join(lines))) == 60


def test_missing_keys_are_named_with_what_they_need(faults: Faults) -> None:
    assert faults("partitions: 32\n", whole=True) == [
        Fault(1, "cluster_name", "missing; allowed: " + _allowed_name()),
        Fault(
            1, "nodes", "missing; allowed: a list of nodes, each with id, host, port, http_port, data_dir"
        ),
        Fault(1, "secret", "missing; allowed: 8 to 1024 characters, or {env: NAME}, or {file: PATH}"),
    ]
    assert [fault.key for fault in faults("nodes:\n  - {}\n", whole=True)] == [
        "cluster_name",
        "secret",
        "nodes[0].host",
        "nodes[0].http_port",
        "nodes[0].id",
        "nodes[0].port",
    ]


def _allowed_name() -> str:
    return "1 to 64 letters, digits, '-', '_' or '.', beginning with a letter or digit"


def test_one_fault_is_one_line_and_several_are_a_list(load: Load, tmp_path: Path) -> None:
    with pytest.raises(ConfigFault) as one:
        load("durability: none\n")
    assert (
        str(one.value) == f"{tmp_path}/cluster.yaml: line 7: durability: found 'none'; allowed: fsync or os"
    )
    with pytest.raises(ConfigFault) as two:
        load("durability: none\nlog: {level: loud}\n")
    assert str(two.value).splitlines() == [
        f"{tmp_path}/cluster.yaml: 2 faults",
        "  line 7: durability: found 'none'; allowed: fsync or os",
        "  line 8: log.level: found 'loud'; allowed: debug, info, warning or error",
    ]


def test_a_mistake_is_told_once(faults: Faults) -> None:
    """A faulty value has a stand-in, and no rule is applied to that."""
    assert [fault.key for fault in faults("suspicion_timeout: x\nheartbeat_interval: 9s\n")] == [
        "suspicion_timeout"
    ]


# -- the environment and overrides


def test_the_environment_beats_the_file_and_overrides_beat_both(load: Load) -> None:
    text = "log: {level: debug, format: json}\nlimits: {event_bytes_max: 2MiB}\n"
    env = {"ALLSOURCE__LOG__LEVEL": "warning", "ALLSOURCE__LIMITS__EVENT_BYTES_MAX": "3MiB", "PATH": "/bin"}
    loaded = load(text, env=env, overrides={"log.level": "error"})
    assert loaded.log == LogSettings("json", "error")
    assert loaded.limits.event_bytes_max == 3 << 20


def test_the_environment_can_give_what_the_file_leaves_out(load: Load, minimal: str) -> None:
    text = minimal.replace("secret: correct horse\n", "")
    assert load(text, whole=True, env={"ALLSOURCE__SECRET": "battery staple"}).secret == "battery staple"


def test_the_clusters_name_from_outside_is_the_one_that_defaults_follow(load: Load) -> None:
    loaded = load(overrides={"cluster_name": "other"})
    assert loaded.cluster_id == default_cluster_id("other")
    assert loaded.nodes[0].data_dir.parts[-3:] == ("data", "other", "n1")


# -- relative paths


@pytest.mark.parametrize(
    ("written", "expected"),
    [("", "data/demo/n1"), ("store", "store"), ("../store", "../store"), ("/srv/n1", "/srv/n1")],
)
def test_a_relative_data_dir_starts_from_the_files_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str, expected: str
) -> None:
    """Not from where the process is: there the same file would mean another, empty store."""
    folder, elsewhere = tmp_path / "folder", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    key = f", data_dir: {written}" if written else ""
    (folder / "c.yaml").write_text(MINIMAL.replace("8001}", f"8001{key}}}"))
    for place, name in ((folder, "c.yaml"), (tmp_path, "folder/c.yaml"), (elsewhere, "../folder/c.yaml")):
        monkeypatch.chdir(place)
        data_dir = load_settings(Path(name), {}).nodes[0].data_dir
        assert data_dir.is_absolute()
        assert data_dir == folder / expected


def test_a_secrets_file_is_looked_for_from_the_files_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "key").write_text("battery staple\n")
    path = tmp_path / "folder" / "c.yaml"
    path.write_text(MINIMAL.replace("correct horse", "{file: key}"))
    monkeypatch.chdir(tmp_path)
    assert load_settings(path, {}).secret == "battery staple"


def test_a_linked_file_has_its_data_beside_the_link(tmp_path: Path) -> None:
    """Kubernetes mounts a file behind links that change with every version of it."""
    (tmp_path / "v1").mkdir()
    (tmp_path / "v1" / "c.yaml").write_text(MINIMAL)
    (tmp_path / "c.yaml").symlink_to("v1/c.yaml")
    assert load_settings(tmp_path / "c.yaml", {}).nodes[0].data_dir == tmp_path / "data/demo/n1"


def test_faults_from_outside_name_their_origin(faults: Faults) -> None:
    env = {
        "ALLSOURCE__LOG__LEVEL": "loud",
        "ALLSOURCE__LOG__LEVL": "info",
        "ALLSOURCE_SERVICE_HOST": "ours",
    }
    assert faults(env=env, overrides={"log.colour": "x", "durability": "x", "nodes[0].port": "1"}) == [
        Fault(0, "", "the environment variable ALLSOURCE__LOG__LEVL sets no key; "
                     "did you mean ALLSOURCE__LOG__LEVEL?"),
        Fault(0, "durability", "an override: found 'x'; allowed: fsync or os"),
        Fault(0, "log.colour", "unknown key in an override; did you mean log.format?"),
        Fault(0, "log.level", "the environment variable ALLSOURCE__LOG__LEVEL: found 'loud'; "
                              "allowed: debug, info, warning or error"),
        Fault(0, "nodes[0].port", "unknown key in an override"),
    ]  # fmt: skip


def test_a_fault_of_the_file_is_told_even_where_the_environment_replaces_it(faults: Faults) -> None:
    assert [f.line for f in faults("durability: x\n", env={"ALLSOURCE__DURABILITY": "os"})] == [7]


# -- hostile input


@given(st.text(max_size=200))
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_settings_or_a_config_fault(tmp_path: Path, text: str) -> None:
    path = tmp_path / "any.yaml"
    path.write_text(text, encoding="utf-8", errors="replace")
    with pytest.raises(ConfigFault) as caught:
        load_settings(path, {})
    assert caught.value.faults


@given(
    st.integers(0, len(MINIMAL)),
    st.integers(0, 12),
    st.text(alphabet="{}[]:,-#&*!|>'\"%@` \nn17", max_size=6),
)
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_file_never_ends_in_anything_else(tmp_path: Path, at: int, cut: int, put: str) -> None:
    path = tmp_path / "damaged.yaml"
    path.write_text(MINIMAL[:at] + put + MINIMAL[at + cut :], encoding="utf-8")
    try:
        found: tuple[object, ...] = load_settings(path, {}).nodes
    except ConfigFault as fault:
        found = tuple(fault.faults)
    assert found, "nodes, or faults"
