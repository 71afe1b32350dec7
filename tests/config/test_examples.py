"""The examples load as they are, beside each other, and say what they are said to."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest

from allsource.config.load import load_settings

CONFIG = Path(__file__).resolve().parents[2] / "config"
SIZES = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "eight": 8}


def example(word: str) -> Path:
    return CONFIG / f"{word}-node{'' if word == 'one' else 's'}.yaml"


def test_there_are_no_others() -> None:
    assert sorted(CONFIG.glob("*.yaml")) == sorted(example(word) for word in SIZES)


@pytest.mark.parametrize("word", SIZES)
def test_an_example_starts_as_it_is(word: str) -> None:
    settings = load_settings(example(word), {})
    assert settings.cluster_name == example(word).stem
    assert [node.id for node in settings.nodes] == [f"n{i}" for i in range(1, SIZES[word] + 1)]
    assert {node.host for node in settings.nodes} == {"127.0.0.1"}
    assert settings.durability == "fsync"
    assert {node.data_dir.parent for node in settings.nodes} == {CONFIG / "data" / settings.cluster_name}
    assert f"scripts/launch config/{example(word).name}" in example(word).read_text()


def test_examples_can_run_beside_each_other() -> None:
    ports = [
        {port for node in load_settings(example(word), {}).nodes for port in (node.port, node.http_port)}
        for word in SIZES
    ]
    assert not any(one & other for one, other in combinations(ports, 2))


def test_the_usual_choice_shows_the_defaults(tmp_path: Path) -> None:
    """three-nodes.yaml writes them out, and must not go on saying one that has changed."""
    written = load_settings(example("three"), {})
    head, _, nodes = example("three").read_text().partition("\nnodes:")
    own = ("cluster_name:", "secret:", "client_secret:")
    name_and_secret = [line for line in head.splitlines() if line.startswith(own)]
    assert len(name_and_secret) == 3
    bare = tmp_path / "bare.yaml"
    bare.write_text("\n".join([*name_and_secret, "nodes:" + nodes]))
    loaded = load_settings(bare, {})
    assert [CONFIG / node.data_dir.relative_to(tmp_path) for node in loaded.nodes] == [
        node.data_dir for node in written.nodes
    ]
    assert replace(loaded, nodes=written.nodes) == written
