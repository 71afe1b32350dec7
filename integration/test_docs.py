"""The pages of `docs/`: every command is run, in order, and every answer that is shown is compared."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import yaml

from allsource.node.cli.control.cluster import ClusterProcess
from allsource.node.cli.control.ports import free_ports
from allsource.node.cli.targets import DEFAULT_CONFIG
from integration.harness import Clusters, needs_curl, shell
from tests.examples import README, commands, fenced, replaced

ROOT = README.parent
DOCS = ROOT / "docs"

VARIES = {"created_at", "id", "path", "size_bytes", "taken", "timestamp", "token", "updated_at"}
"""Keys of answers whose values are other ones each time."""


# -- http.md


def same(shown: Any, answered: Any, where: str = "") -> list[str]:
    """Where an answer differs from the one that is shown, but for what differs each time."""
    if isinstance(shown, dict) and isinstance(answered, dict):
        faults = [f"{where}: {sorted(shown)} are shown, {sorted(answered)} answered"]
        faults = faults if shown.keys() != answered.keys() else []
        both = shown.keys() & answered.keys() - VARIES
        return faults + [
            fault for key in both for fault in same(shown[key], answered[key], f"{where}.{key}")
        ]
    if isinstance(shown, list) and isinstance(answered, list) and len(shown) == len(answered):
        items = enumerate(zip(shown, answered, strict=True))
        return [fault for i, (one, other) in items for fault in same(one, other, f"{where}[{i}]")]
    return [] if shown == answered else [f"{where}: {shown!r} is shown, {answered!r} answered"]


@needs_curl
async def test_the_http_page_shows_what_is_answered(clusters: Clusters, tmp_path: Path) -> None:
    text = (DOCS / "http.md").read_text()
    cluster = await clusters.start(1)
    here = cluster.url("n1").removeprefix("http://")
    examples = re.findall(r"^```sh\n(.*?)^```\n(?:\n```json\n(.*?)^```$)?", text, re.MULTILINE | re.DOTALL)
    assert len(examples) == len(fenced(text, "sh"))
    assert sum(1 for _, shown in examples if shown) == len(fenced(text, "json"))
    for line, shown in examples:
        answered = json.loads(await shell(replaced(line, {"localhost:8101": here}), tmp_path))
        if shown:
            assert not same(json.loads(shown), answered), line


# -- operations.md


def copied(directory: Path) -> tuple[Path, dict[str, str]]:
    """The usual cluster's file in a folder of its own, on free ports; and which port stands for which."""
    text = (ROOT / DEFAULT_CONFIG).read_text()
    nodes = yaml.safe_load(text)["nodes"]
    old = [str(node[key]) for node in nodes for key in ("port", "http_port")]
    ports = dict(zip(old, map(str, free_ports(len(old))), strict=True))
    path = directory / DEFAULT_CONFIG
    path.parent.mkdir()
    path.touch(mode=0o600)
    path.write_text(re.sub("|".join(ports), lambda match: ports[match[0]], text))
    return path, ports


async def start(cluster: ClusterProcess, line: str) -> None:
    """What `allsource node FILE --id ID` does, beside the test; the first start needs all of them."""
    first = not any(node.running for node in cluster.nodes.values())
    node_id = shlex.split(line, comments=True)[-1]
    cluster.start(*(cluster.ids if first else [node_id]))
    await cluster.settled()


@needs_curl
async def test_the_operations_page_can_be_followed(clusters: Clusters, tmp_path: Path) -> None:
    config, ports = copied(tmp_path)
    cluster = await clusters.adopt(config)
    told: dict[str, str] = {}
    for line in commands("".join(fenced((DOCS / "operations.md").read_text(), "sh"))):
        if line.startswith("allsource node "):
            await start(cluster, line)
            continue
        asked = re.sub("|".join(ports), lambda match: ports[match[0]], line)
        pid = str(cluster.nodes["n2"].pid) if "$N2" in line else ""
        told[line.partition("  ")[0]] = await shell(asked, tmp_path, N2=pid)
        if pid:
            await cluster.ended("n2")
    for command, words in SAID.items():
        assert words in told[command], told[command]


SAID = {
    "allsource config client-secret config/three-nodes.yaml": "change-me-clients-of-three-nodes",
    "curl -sf localhost:8101/health/ready": '{"status":"ready"}',
    "allsource verify config/three-nodes.yaml --id n2": "n2: 32 partitions, 0 events: all is well",
    "allsource drill stop-node --rounds 1": "PASSED: 1 round of stop-node on 3 nodes with rocksdb",
    "allsource verify --data-dir config/data/three-nodes/n1/checkpoints/monday": "all is well",
    "curl -s localhost:8101/metrics": "allsource_ready 1.0",
}
"""What some of the commands must have said."""
