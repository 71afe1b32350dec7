"""A small network of one's own on one machine: a namespace for each node, a bridge, and cuts in either way.

Linux, as root, with `ip` (iproute2). The process moves into a network namespace of its own first, so that
nothing here touches the machine's real network, and all of it vanishes with the process but for the nodes'
namespaces, which `Lan` removes.

A cut is silent, as a cut cable far away is: no reset, no "unreachable", the packets are gone. Each node
knows its neighbours' hardware addresses by heart (permanent entries of its neighbour table), and a cut from
a to b makes a's entry for b name a card that nobody has.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Sequence
from types import TracebackType

CLONE_NEWNET = 0x40000000
CLIENT_IP = "10.88.0.254"
NOBODY = "02:00:00:00:00:ff"
_CLIENT_MAC = "02:00:00:00:00:fe"


def own_network() -> None:
    """Move this process (and every child from now on) into an empty network namespace. Needs root."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET):
        number = ctypes.get_errno()
        raise SystemExit(f"a network namespace of one's own needs root: {os.strerror(number)}")


class Lan:
    """The namespaces of some nodes, joined by a bridge on which the caller sits too. A context."""

    def __init__(self, node_ids: Sequence[str]) -> None:
        self.node_ids = tuple(node_ids)
        self.cuts: set[tuple[str, str]] = set()

    def ip_of(self, node_id: str) -> str:
        return f"10.88.0.{self.node_ids.index(node_id) + 1}"

    def namespace(self, node_id: str) -> str:
        return f"allsource-{os.getpid()}-{node_id}"

    def __enter__(self) -> Lan:
        _ip("link set lo up", "link add br0 type bridge")
        _ip(f"link set br0 address {_CLIENT_MAC} up", f"address add {CLIENT_IP}/24 dev br0")
        try:
            for node_id in self.node_ids:
                self._join(node_id)
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def _join(self, node_id: str) -> None:
        name, port = self.namespace(node_id), f"v-{node_id}"
        _ip(f"netns add {name}")
        _ip(f"link add {port} type veth peer name eth0 address {self._mac(node_id)} netns {name}")
        _ip(
            f"link set {port} master br0 up",
            f"neigh add {self.ip_of(node_id)} lladdr {self._mac(node_id)} dev br0",
        )
        _ip(
            "link set lo up",
            "link set eth0 up",
            f"address add {self.ip_of(node_id)}/24 dev eth0",
            f"neigh add {CLIENT_IP} lladdr {_CLIENT_MAC} dev eth0",
            *[
                f"neigh add {self.ip_of(other)} lladdr {self._mac(other)} dev eth0"
                for other in self.node_ids
                if other != node_id
            ],
            within=name,
        )

    def _mac(self, node_id: str) -> str:
        return f"02:00:00:00:00:{self.node_ids.index(node_id) + 1:02x}"

    def _remove(self) -> None:
        for node_id in self.node_ids:
            subprocess.run(
                ["ip", "netns", "delete", self.namespace(node_id)], stderr=subprocess.DEVNULL, check=False
            )

    def cut(self, a: str, b: str, *, one_way: bool = False) -> None:
        """From now on nothing of a's reaches b, nor (unless `one_way`) the other way round."""
        self._point(a, b, NOBODY)
        if not one_way:
            self._point(b, a, NOBODY)

    def heal(self) -> None:
        """Everything reaches everybody again."""
        for a, b in sorted(self.cuts):
            self._point(a, b, self._mac(b))

    def _point(self, a: str, b: str, mac: str) -> None:
        _ip(f"neigh replace {self.ip_of(b)} lladdr {mac} dev eth0", within=self.namespace(a))
        (self.cuts.add if mac == NOBODY else self.cuts.discard)((a, b))


def _ip(*commands: str, within: str | None = None) -> None:
    """Some commands of ip(8) in one go."""
    where = [] if within is None else ["-n", within]
    done = subprocess.run(
        ["ip", *where, "-batch", "-"],
        input="\n".join(commands),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"ip: {'; '.join(commands)}: {done.stderr.strip()}")
