"""The HTTP application: routes, probes, and what happens to every request and answer.

Probes are not part of the service: a node that cannot serve anything must still say so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from allsource.config.schema import Limits
from allsource.node.http.answers import Answer, respond
from allsource.node.http.checkpoints import Checkpoints, checkpoint_routes
from allsource.node.http.complaints import Complaints, default_complaints
from allsource.node.http.errors import RETRY_AFTER_S, error_response, http_error, internal_error
from allsource.node.http.guards import Hosts, check_source
from allsource.node.http.holder import holder_of
from allsource.node.http.queries import Query
from allsource.node.http.streams import Service, Streams
from allsource.storage.model.errors import AllsourceError
from allsource.storage.model.partition import PARTITION_COUNT

METRICS_EFFORT = 32 << 10
"""To render `/metrics` takes some 4 ms, like parsing so many bytes: two in a turn of the loop."""

_PATTERN = re.compile(r":[^}]*}")
"""What a path parameter must match, for aiohttp: no reader of a list of routes needs it."""


def make_app(
    service: Service,
    *,
    limits: Limits,
    metrics_render: Callable[[], tuple[bytes, str]],
    readiness: Callable[[], Sequence[str]],
    answered: Callable[[int], None] = lambda status: None,
    checkpoints: Checkpoints | None = None,
    partitions: int = PARTITION_COUNT,
    hosts: Hosts | None = None,
) -> web.Application:
    """The application. `metrics_render` gives a body and its content type; `readiness` names, one
    sentence each, what this node still waits for (nothing: it is ready). `answered` is told
    the status of each answer. Without `checkpoints` there is no `/v1/checkpoints`. `hosts` are the names
    under which a browser may ask."""
    every_answer = _every_answer(answered, default_complaints(), hosts or Hosts())
    app = web.Application(middlewares=[every_answer], client_max_size=0)
    routes = Streams(service, limits, partitions).routes()
    if checkpoints is not None:
        routes += checkpoint_routes(checkpoints)
    app.add_routes(routes)
    listed = [f"{route.method} {_PATTERN.sub('}', route.path)}" for route in routes]

    async def index(request: web.Request) -> web.Response:
        Query(request)
        return respond(request, {"api": "allsource", "version": 1, "routes": listed})

    async def live(request: web.Request) -> web.Response:
        return respond(request, {"status": "live"})

    async def ready(request: web.Request) -> web.Response:
        missing = list(readiness())
        if not missing:
            return respond(request, {"status": "ready"})
        body = {"error": "not_ready", "message": "; ".join(missing), "definite": True, "missing": missing}
        return respond(request, body, 503, {"Retry-After": str(RETRY_AFTER_S)})

    async def metrics(request: web.Request) -> web.Response:
        await holder_of(request).turn(METRICS_EFFORT)
        body, content_type = metrics_render()
        return Answer(body=body, headers={"Content-Type": content_type})

    app.router.add_get("/v1", index)
    app.router.add_get("/v1/", index)
    app.router.add_get("/health/live", live)
    app.router.add_get("/health/ready", ready)
    app.router.add_get("/metrics", metrics)
    return app


def _every_answer(answered: Callable[[int], None], complaints: Complaints, hosts: Hosts) -> Middleware:
    """Every answer passes here: whatever a handler raises becomes the one shape, never a traceback."""

    async def answer_to(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            check_source(request.headers, hosts)
            return await handler(request)
        except AllsourceError as error:
            return error_response(request, error)
        except web.HTTPException as error:
            return http_error(request, error)
        except Exception as error:  # the last line of defence
            complaints.defect("unexpected error in the HTTP door", error, path=request.path[:200])
            return internal_error(request)

    @web.middleware
    async def every_answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        holder_of(request).begun(request.can_read_body)
        response = await answer_to(request, handler)
        if not request.content.is_eof():  # the next request would begin in the middle of this one's body
            response.force_close()
        answered(response.status)
        return response

    return every_answer
