"""`allsource checkpoint`: have running nodes copy what they have stored, each in its data directory."""

from __future__ import annotations

from typing import Any, NamedTuple
from urllib.parse import quote

import aiohttp
import click

from allsource.node.cli.control.picture import ClusterPicture
from allsource.node.cli.loop import run_loop
from allsource.node.cli.output import echo_json, echo_table, note
from allsource.node.cli.targets import Target, target_options

COPY_TIMEOUT_S = 600.0
"""A node flushes what it has in memory first; on a slow disk that is not done in a moment."""


@click.command()
@target_options
@click.argument("name", required=False)
@click.option("--remove", is_flag=True, help="Remove the checkpoint NAME instead of making it.")
@click.option("--on", "wanted", multiple=True, metavar="ID", help="Only this node; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="The answers as JSON.")
def checkpoint(
    target: Target, name: str | None, remove: bool, wanted: tuple[str, ...], as_json: bool
) -> int:
    """Have every node make a checkpoint NAME: a copy of all that it has stored, while it serves. Without
    NAME, list them; with --remove, remove it. Exit status 1 unless every node that was asked has answered
    with success.

    A node's copy holds at least what it had acknowledged before. It lies in `checkpoints/NAME` of the data
    directory; `allsource verify --data-dir` checks it, and open_repository("rocksdb:///...") reads it. No
    node can be started from it. Remove it when it is no longer needed: it keeps old files on the disk, and
    a node keeps at most `limits.checkpoints_max`."""
    if remove and name is None:
        raise click.UsageError("--remove needs the NAME of a checkpoint")
    answers = run_loop(_ask(target, _Wish(name, remove), wanted))
    if as_json:
        echo_json({"ok": all(one.ok for one in answers), "nodes": [one.as_json() for one in answers]})
    else:
        echo_table(
            "", ("node", "checkpoint", "taken", "MiB", "path"), [r for a in answers for r in a.rows()]
        )
        for one in answers:
            if not one.ok:
                note(f"{one.node}: {one.body['message']} [{one.body['error']}]")
    return int(not all(one.ok for one in answers))


class _Answer(NamedTuple):
    """What a node said."""

    node: str
    ok: bool
    body: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        return {**self.body, "node": self.node, "ok": self.ok}

    def rows(self) -> list[list[str]]:
        found = self.body.get("checkpoints", [self.body]) if self.ok else []
        return [
            [
                self.node,
                one["name"],
                one["taken"] or "opened as a repository",
                str(one["size_bytes"] >> 20),
                one["path"],
            ]
            for one in found
        ]


class _Wish(NamedTuple):
    """Make the checkpoint of this name, or remove it; without a name, list them."""

    name: str | None
    remove: bool

    def ask(self, http: aiohttp.ClientSession, url: str) -> Any:
        if self.name is None:
            return http.get(url)
        if self.remove:
            return http.delete(f"{url}/{quote(self.name, safe='')}")
        return http.post(url, json={"name": self.name})


async def _ask(target: Target, wish: _Wish, wanted: tuple[str, ...]) -> list[_Answer]:
    async with target.connect() as client:
        nodes = ClusterPicture.read(await client.cluster()).nodes
    if strangers := sorted(set(wanted) - {node.id for node in nodes}):
        known = ", ".join(node.id for node in nodes)
        raise click.UsageError(f"the cluster has no node {strangers[0]!r}; it has {known}")
    timeout = aiohttp.ClientTimeout(total=COPY_TIMEOUT_S, sock_connect=target.timeout_s)
    async with aiohttp.ClientSession(timeout=timeout) as http:
        asked = [node for node in nodes if not wanted or node.id in wanted]
        # One after another: each stands still for a moment at the end of its copying.
        return [await _ask_one(http, node.id, node.http_address, wish) for node in asked]


async def _ask_one(http: aiohttp.ClientSession, node: str, address: str, wish: _Wish) -> _Answer:
    try:
        async with wish.ask(http, f"http://{address}/v1/checkpoints") as response:
            return _Answer(node, response.ok, await response.json())
    except aiohttp.ClientConnectorError as error:
        message = (
            f"cannot be reached at {address}: {error.os_error.strerror or error}; nothing was done there"
        )
        return _Answer(node, False, {"error": "unreachable", "message": message})
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        reason = str(error) or type(error).__name__
        message = f"no answer from {address}: {reason}; it may have been done all the same: list them"
        return _Answer(node, False, {"error": "no_answer", "message": message})
