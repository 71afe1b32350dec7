"""`allsource status`, `append` and `read`: one question to a running cluster each."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from typing import Any, NamedTuple
from uuid import UUID

import click

from allsource.client import Client
from allsource.client.arguments import Consistency
from allsource.client.client import PAGE_EVENTS
from allsource.cluster.protocol.requests import AppendResult
from allsource.config.backends import BACKENDS
from allsource.node.cli.control.picture import NODE_COLUMNS, ClusterPicture, node_rows, owner_map
from allsource.node.cli.given import events_of_lines, given_data
from allsource.node.cli.loop import run_loop
from allsource.node.cli.output import echo, echo_json, echo_table, say
from allsource.node.cli.show import event_json, event_line, partition_line, tag_line
from allsource.node.cli.targets import Target, target_options
from allsource.storage.model.errors import InvalidRequest
from allsource.storage.model.events import BINARY, JSON, Event, NewEvent, new_event_id
from allsource.storage.model.json_text import check_json

_TYPE = "Event"
_JSON = click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")


@click.command()
@target_options
@_JSON
def status(target: Target, as_json: bool) -> int:
    """Nodes and partitions, as one node of the cluster sees them."""
    view = run_loop(_status(target))
    if as_json:
        echo_json(view)
        return 0
    picture = ClusterPicture.read(view)
    say(
        f"cluster {picture.cluster!r} as {picture.node} sees it;"
        f" storage {picture.storage}, durability {picture.durability}"
    )
    if picture.durability != "fsync" or _in_server(picture.storage):
        say(f"{picture.durability}: {picture.durability_means}")
    echo_table("", NODE_COLUMNS, node_rows(picture))
    say("owners by partition")
    for line in owner_map(picture.owners()):
        say(line)
    return 0


def _in_server(storage: str) -> bool:
    """Whether a backend keeps its events in a server. A newer node may name a backend that is unknown
    here."""
    traits = BACKENDS.get(storage)
    return traits is not None and traits.in_server


async def _status(target: Target) -> dict[str, Any]:
    async with target.connect() as client:
        return await client.cluster()


_APPEND_EXAMPLES = """
\b
Examples:
  allsource append order-1 '{"total": 42}' --type OrderPlaced
  jq .order message.json | allsource append order-1 --type OrderPlaced
  allsource append order-1 --lines < events.jsonl
"""


@click.command(epilog=_APPEND_EXAMPLES)
@target_options
@click.argument("stream")
@click.argument("data", required=False)
@click.option("--type", "type_", default=_TYPE, show_default=True, help="The event's type.")
@click.option("--metadata", help="JSON that goes with the event.")
@click.option("--id", "id_", type=click.UUID, help="The event's id; repeating an append with it is safe.")
@click.option(
    "--expected-version",
    default="any",
    show_default=True,
    help="any, no_stream, exists, or the stream's exact version.",
)
@click.option("--binary", is_flag=True, help="DATA is not JSON: store its bytes as they are.")
@click.option(
    "--lines", is_flag=True, help='Append an event a line: {"type": ..., "data": ..., "metadata"?, "id"?}.'
)
@_JSON
def append(
    target: Target,
    stream: str,
    data: str | None,
    type_: str,
    metadata: str | None,
    id_: UUID | None,
    expected_version: str,
    binary: bool,
    lines: bool,
    as_json: bool,
) -> int:
    """Append an event to STREAM.

    DATA is the event's data: one JSON value, stored as it is written (text needs its quotes: '"text"').
    If it is `-`, or left out while something is piped in, it is read from standard input, where it may
    take many lines.
    """
    if lines and (binary or metadata is not None or id_ is not None or type_ != _TYPE):
        raise click.UsageError("--lines: each line says its own type, metadata and id")
    raw = given_data(data)
    if lines:
        events = events_of_lines(raw)
    else:
        extra = b"" if metadata is None else _checked(os.fsencode(metadata), "--metadata")
        chosen = new_event_id() if id_ is None else id_.bytes
        body = raw if binary else _checked(raw, "DATA")
        events = [NewEvent(type_, body, extra, BINARY if binary else JSON, chosen)]
    result = run_loop(_append(target, stream, events, _expected(expected_version)))
    if as_json:
        echo_json(_appended(result))
    else:
        say(_appended_line(result))
    return 0


def _expected(text: str) -> str | int:
    is_version = text.isascii() and text.isdigit() and len(text) < 20
    return int(text) if is_version else text


async def _append(
    target: Target, stream: str, events: list[NewEvent], expected_version: str | int
) -> AppendResult:
    async with target.connect() as client:
        return await client.append(stream, events, expected_version)


def _checked(raw: bytes, what: str) -> bytes:
    """The JSON text without the white space around it."""
    try:
        check_json(raw, what)
    except InvalidRequest as error:
        hint = "several events, one a line: --lines; " if b"\n" in raw.strip() else ""
        raise InvalidRequest(
            f'{error.message} ({hint}text is written "text"; --binary takes anything)'
        ) from None
    return raw.strip(b" \t\r\n")


def _appended(result: AppendResult) -> dict[str, Any]:
    (stream,) = result.streams
    return {
        **stream._asdict(),
        "partition": result.partition,
        "first_position": result.first_position,
        "last_position": result.last_position,
        "token": result.token,
        "duplicate": result.duplicate,
    }


def _appended_line(result: AppendResult) -> str:
    (stream,) = result.streams
    many = stream.last_version > stream.first_version
    versions = (
        f"versions {stream.first_version}-{stream.last_version}"
        if many
        else f"version {stream.last_version}"
    )
    again = " (it had been appended before)" if result.duplicate else ""
    return (
        f"{stream.stream}: {versions}, partition {result.partition}, position {result.last_position}{again}"
    )


@click.command()
@target_options
@click.argument("stream", required=False)
@click.option(
    "--partition", type=click.IntRange(0), help="Read a partition by position instead of a stream."
)
@click.option("--tag", help="Read all streams with this {tag}, by the numbers of their events under it.")
@click.option("--type", "types", multiple=True, help="With --tag: only this type; may be repeated.")
@click.option("--from", "from_", type=click.IntRange(1), help="First version (or position, or number).")
@click.option("--limit", type=click.IntRange(1), help="At most so many events; all by default.")
@click.option("--backward", is_flag=True, help="Newest first (streams and tags).")
@click.option("--local", is_flag=True, help="From any one replica: it may be a little behind.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def read(
    target: Target,
    stream: str | None,
    partition: int | None,
    tag: str | None,
    types: tuple[str, ...],
    from_: int | None,
    limit: int | None,
    backward: bool,
    local: bool,
    as_json: bool,
) -> int:
    """Print the events of STREAM (or of a partition, or under a tag), one a line.

    A line has version, time, type and data; of a partition's events, position and stream before them, and
    of a tag's, number and stream. Data is shown as it was written, with everything escaped that is not
    printable.
    """
    if [stream, partition, tag].count(None) != 2:
        raise click.UsageError("read what? Give a STREAM, --partition N, or --tag TAG")
    if partition is not None and backward:
        raise click.UsageError(
            "--backward is for streams and tags; partitions are read in order of position"
        )
    if types and tag is None:
        raise click.UsageError("--type is for --tag")
    consistency: Consistency = "local" if local else "linearizable"
    wanted = _Wanted(stream, partition, tag, types, from_, limit, backward, consistency)
    run_loop(_read(target, wanted, as_json=as_json))
    return 0


class _Wanted(NamedTuple):
    """What `read` was asked for."""

    stream: str | None
    partition: int | None
    tag: str | None
    types: tuple[str, ...]
    start: int | None
    """None: with the first event, or backward with the last."""
    limit: int | None
    backward: bool
    consistency: Consistency


async def _read(target: Target, wanted: _Wanted, *, as_json: bool) -> None:
    show = (
        event_line if wanted.stream is not None else tag_line if wanted.tag is not None else partition_line
    )
    show = event_json if as_json else show
    left = wanted.limit
    async with AsyncExitStack() as closing:
        client = await closing.enter_async_context(target.connect())
        events = await closing.enter_async_context(aclosing(_events(client, wanted)))
        async for event in events:
            echo(show(event))
            left = None if left is None else left - 1
            if left == 0:
                return


async def _events(client: Client, wanted: _Wanted) -> AsyncGenerator[Event, None]:
    if wanted.stream is not None:
        async for event in client.stream(
            wanted.stream,
            from_version=wanted.start,
            backward=wanted.backward,
            consistency=wanted.consistency,
            page=min(wanted.limit or PAGE_EVENTS, PAGE_EVENTS),
        ):
            yield event
        return
    if wanted.tag is not None:
        async for event in _tagged(client, wanted.tag, wanted):
            yield event
        return
    assert wanted.partition is not None
    position = wanted.start or 1
    while True:
        page = await client.read_partition(
            wanted.partition, from_position=position, consistency=wanted.consistency
        )
        for event in page.events:
            yield event
        if page.next_from > page.last_position:
            return
        position = page.next_from


async def _tagged(client: Client, tag: str, wanted: _Wanted) -> AsyncGenerator[Event, None]:
    start = wanted.start
    while start != 0:
        page = await client.read_tag(
            tag,
            from_number=start,
            limit=min(wanted.limit or PAGE_EVENTS, PAGE_EVENTS),
            backward=wanted.backward,
            types=wanted.types,
            consistency=wanted.consistency,
        )
        for event in page.events:
            yield event
        start = page.next_from
