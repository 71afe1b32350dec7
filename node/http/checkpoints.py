"""`/v1/checkpoints`: have this node copy what it has stored, and list the copies.

::

    POST /v1/checkpoints {"name": "before-upgrade"}
        201 {"name", "node", "path", "taken", "size_bytes"}
        400 no such name can be given · 409 it is taken, or there are too many · 501 not with this backend
        503 the disk is nearly full, or another checkpoint is being made
        500 "checkpoint_failed": it cannot be made there, and nothing of it is left
    GET  /v1/checkpoints
        200 {"node", "checkpoints": [...]}; "taken" is null of one that was opened as a repository
    DELETE /v1/checkpoints/{name}
        200 what it was · 404 there is none
        500 "checkpoint_failed": it is in use, or no checkpoint any more

A request is about the node that it is sent to, and is never forwarded.
"""

from __future__ import annotations

from typing import Any, Protocol

from aiohttp import web

from allsource.node.http import json_bodies, msgpack_bodies
from allsource.node.http.answers import respond
from allsource.node.http.bodies import read_body
from allsource.node.http.queries import Query
from allsource.storage.model.errors import InvalidRequest

NAME_BODY_BYTES_MAX = 4096
"""A name of 64 characters needs far less."""


class Checkpoints(Protocol):
    """What the door needs of the node; `node.checkpoints` is it."""

    async def make(self, name: str) -> dict[str, Any]: ...

    async def listed(self) -> dict[str, Any]: ...

    async def remove(self, name: str) -> dict[str, Any]: ...


def checkpoint_routes(checkpoints: Checkpoints) -> list[web.RouteDef]:
    """The three rows."""

    async def make(request: web.Request) -> web.Response:
        Query(request)
        body = await read_body(request, NAME_BODY_BYTES_MAX)
        name = (msgpack_bodies if body.is_msgpack else json_bodies).name_in(body.data)
        if not isinstance(name, str):
            raise InvalidRequest('the body must be {"name": "..."}, the name of the checkpoint')
        return respond(request, await checkpoints.make(name), 201)

    async def listed(request: web.Request) -> web.Response:
        Query(request)
        return respond(request, await checkpoints.listed())

    async def remove(request: web.Request) -> web.Response:
        Query(request)
        return respond(request, await checkpoints.remove(request.match_info["name"]))

    return [
        web.post("/v1/checkpoints", make),
        web.get("/v1/checkpoints", listed),
        web.delete("/v1/checkpoints/{name:[^/]+}", remove),
    ]
