"""Every error as one JSON shape, with the HTTP status that tells its reader what to do.

::

    {"error": code, "message": what happened and what to do, "definite": did it surely not happen, ...}

The status is a summary for proxies and for people who use curl; programs test `error` and `definite`.
503 always means that nothing happened and the same request may succeed later (`Retry-After`);
504 alone means that it may have happened.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from allsource.node.http.answers import respond
from allsource.node.http.bodies import UnsupportedBody
from allsource.node.http.guards import CrossSite, HostRefused
from allsource.storage.files.checkpoint import CheckpointExists, TooManyCheckpoints
from allsource.storage.model.errors import (
    AllsourceError,
    CheckpointsUnsupported,
    EventIdConflict,
    InvalidRequest,
    MarkRefused,
    NotFound,
    NotOwner,
    OutcomeUnknown,
    TooLarge,
    Unavailable,
    WrongExpectedTag,
    WrongExpectedVersion,
)

STATUS_OF = {
    TooLarge: 413,
    UnsupportedBody: 415,
    HostRefused: 403,
    CrossSite: 403,
    TooManyCheckpoints: 409,
    InvalidRequest: 400,
    NotFound: 404,
    WrongExpectedVersion: 409,
    WrongExpectedTag: 409,
    MarkRefused: 409,
    EventIdConflict: 409,
    CheckpointExists: 409,
    CheckpointsUnsupported: 501,
    NotOwner: 503,
    Unavailable: 503,
    OutcomeUnknown: 504,
}
"""The status of a class and, unless they have their own, of its subclasses. Any other error is 500."""

RETRY_AFTER_S = 1
"""Elections take a tenth of this; it is the shortest wait that the header can name."""


def status_of(error: AllsourceError) -> int:
    """The HTTP status of an error."""
    return next((STATUS_OF[cls] for cls in type(error).__mro__ if cls in STATUS_OF), 500)


def error_body(error: AllsourceError) -> dict[str, Any]:
    """The error in its one shape. Details never hide the first three keys."""
    body = {"error": error.code, "message": error.message, "definite": error.definite}
    return {**body, **error.details, **body}


def error_response(request: web.Request, error: AllsourceError) -> web.Response:
    """The answer to a request that ended in `error`."""
    status = status_of(error)
    headers = {"Retry-After": str(retry_after_s(error))} if status == 503 else None
    return respond(request, error_body(error), status, headers)


def retry_after_s(error: AllsourceError) -> int:
    """In how many seconds there is a chance: when those that are in front should have been served."""
    wait_ms = error.details.get("wait_ms")
    return max(RETRY_AFTER_S, -(-wait_ms // 1000)) if isinstance(wait_ms, int) else RETRY_AFTER_S


def internal_error(request: web.BaseRequest) -> web.Response:
    """The answer when something happened that must not happen."""
    message = (
        "an unexpected error, logged by the node; an append may have happened: retry with the same ids"
    )
    return respond(request, {"error": "internal", "message": message, "definite": False}, 500)


def http_error(request: web.BaseRequest, error: web.HTTPException) -> web.Response:
    """aiohttp's own refusals (no such route, wrong method, body too large) in our shape."""
    headers: dict[str, str] = {}
    if isinstance(error, web.HTTPMethodNotAllowed):
        code, allowed = "method_not_allowed", ", ".join(sorted(error.allowed_methods))
        message = f"{request.method} is not allowed here; use {allowed}"
        headers["Allow"] = allowed
    elif isinstance(error, web.HTTPRequestEntityTooLarge):
        code, message = "too_large", "the body is larger than this node takes; split the append"
    elif error.status == 404:
        code = "no_such_route"
        path = request.path[:200]
        message = f"there is nothing at {path}; GET /v1 lists what there is, stream ids are URL-encoded"
    else:
        code, message = "http_error", error.reason  # never its text, which may repeat a header
    return respond(request, {"error": code, "message": message, "definite": True}, error.status, headers)
