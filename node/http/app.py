"""The HTTP application and the server that runs it: routes, probes, limits.

Probes are not part of the service: a node that cannot serve anything must still say so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from aiohttp import web
from aiohttp.typedefs import Handler

from allsource.config.schema import Limits
from allsource.node.http.answers import respond
from allsource.node.http.checkpoints import Checkpoints, checkpoint_routes
from allsource.node.http.errors import RETRY_AFTER_S, errors_as_answers
from allsource.node.http.streams import Service, Streams
from allsource.storage.errors import AllsourceError
from allsource.storage.partition import PARTITION_COUNT

BODY_ROOM = 2
"""A body may have this many times `append_bytes_max` bytes: base64 and JSON's quoting need room."""

SHUTDOWN_TIMEOUT_S = 2.0
"""How long `HttpServer.stop` waits for answers that are still being given."""

__all__ = ["HttpServer", "Service", "make_app"]


def make_app(
    service: Service,
    *,
    limits: Limits,
    metrics_render: Callable[[], tuple[bytes, str]],
    readiness: Callable[[], Sequence[str]],
    answered: Callable[[int], None] = lambda status: None,
    checkpoints: Checkpoints | None = None,
    partitions: int = PARTITION_COUNT,
) -> web.Application:
    """The application. `metrics_render` gives a body and its content type; `readiness` names, one
    sentence each, what this node still waits for (nothing: it is ready). `answered` is told
    the status of each answer. Without `checkpoints` there is no `/v1/checkpoints`."""

    @web.middleware
    async def tell_status(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await errors_as_answers(request, handler)
        answered(response.status)
        return response

    app = web.Application(middlewares=[tell_status], client_max_size=BODY_ROOM * limits.append_bytes_max)
    app.add_routes(Streams(service, limits, partitions).routes())
    if checkpoints is not None:
        app.add_routes(checkpoint_routes(checkpoints))

    async def live(request: web.Request) -> web.Response:
        return respond(request, {"status": "live"})

    async def ready(request: web.Request) -> web.Response:
        missing = list(readiness())
        if not missing:
            return respond(request, {"status": "ready"})
        body = {"error": "not_ready", "message": "; ".join(missing), "definite": True, "missing": missing}
        return respond(request, body, 503, {"Retry-After": str(RETRY_AFTER_S)})

    async def metrics(_: web.Request) -> web.Response:
        body, content_type = metrics_render()
        return web.Response(body=body, headers={"Content-Type": content_type})

    app.router.add_get("/health/live", live)
    app.router.add_get("/health/ready", ready)
    app.router.add_get("/metrics", metrics)
    return app


class HttpServer:
    """An application that listens on one address until it is stopped."""

    def __init__(self, app: web.Application, host: str, port: int) -> None:
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_TIMEOUT_S)
        self._host = host
        self._port = port

    @property
    def port(self) -> int:
        """The port that is listened on (of interest when 0 was asked for)."""
        port: int = self._runner.addresses[0][1]
        return port

    async def start(self) -> None:
        """Listen. Raises `AllsourceError` with what to do when the address cannot be had."""
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError as error:
            await self._runner.cleanup()
            raise AllsourceError(
                f"cannot listen for HTTP on {self._host}:{self._port}: {error.strerror or error}; "
                "stop what uses the port, or give the node another http_port"
            ) from error

    async def stop(self) -> None:
        """Stop listening, let the answers under way finish, close the connections."""
        await self._runner.cleanup()
