"""Write a configuration, load it, and look at its faults."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from textwrap import dedent

import pytest

from allsource.config.load import ConfigFault, Fault, load_settings
from allsource.config.schema import Settings

MINIMAL = """\
cluster_name: demo
secret: correct horse
nodes:
  - {id: n1, host: 127.0.0.1, port: 7001, http_port: 8001}
  - {id: n2, host: 127.0.0.1, port: 7002, http_port: 8002}
  - {id: n3, host: 127.0.0.1, port: 7003, http_port: 8003}
"""
"""Six lines: what the tests add comes behind them, from line 7 on."""

Load = Callable[..., Settings]
Faults = Callable[..., list[Fault]]


@pytest.fixture
def minimal() -> str:
    return MINIMAL


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """`load(text)`: the settings. `text` goes behind the minimal file unless `whole` is set."""

    def load_text(
        text: str = "",
        *,
        whole: bool = False,
        env: Mapping[str, str] | None = None,
        overrides: Mapping[str, str] | None = None,
    ) -> Settings:
        path = tmp_path / "cluster.yaml"
        path.write_text(dedent(text) if whole else MINIMAL + dedent(text), encoding="utf-8")
        return load_settings(path, env or {}, overrides)

    return load_text


@pytest.fixture
def faults(load: Load) -> Faults:
    """Like `load`, of a text that cannot be loaded: its faults."""

    def faults_of(text: str = "", **arguments: object) -> list[Fault]:
        with pytest.raises(ConfigFault) as caught:
            load(text, **arguments)
        return caught.value.faults

    return faults_of
