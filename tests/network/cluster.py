"""A cluster whose nodes live on a `Lan`: each process in the namespace of its node."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from allsource.node.cli.control.cluster import ClusterProcess, Node
from allsource.node.cli.control.processes import NodeProcess, node_command
from tests.network.lan import Lan

PORT, HTTP_PORT = 7101, 8101


def write_lan_config(directory: Path, lan: Lan, **settings: Any) -> Path:
    """`directory/cluster.yaml` for the nodes of the network, their data in `directory`."""
    nodes = [
        {
            "id": node_id,
            "host": lan.ip_of(node_id),
            "port": PORT,
            "http_port": HTTP_PORT,
            "data_dir": str(directory / node_id),
        }
        for node_id in lan.node_ids
    ]
    path = directory / "cluster.yaml"
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump({**settings, "nodes": nodes}, sort_keys=False))
    return path


class LanCluster(ClusterProcess):
    """Starts each node where it belongs."""

    def __init__(self, config: Path, lan: Lan) -> None:
        self._lan = lan
        super().__init__(config)

    def _own_nodes(self) -> dict[str, Node]:
        return {
            node_id: NodeProcess(node_id, self._command(node_id), output=self._log_path(node_id))
            for node_id in self.ids
        }

    def _command(self, node_id: str) -> Sequence[str]:
        inside = ["ip", "netns", "exec", self._lan.namespace(node_id)]
        return [*inside, *node_command(self.config, node_id)]
