"""Who may ask through a browser: nobody but pages that this node itself would have served.

The HTTP port asks for no password. On a developer's machine or inside a network that is no reason for a
page somewhere on the web to append events or make checkpoints, which a browser would do for it:

* a **cross-origin** request is known by `Origin` and `Sec-Fetch-Site`, which scripts cannot change.
  (Without these, a page could only send text/plain or a form, and `bodies` takes neither.)
* **DNS rebinding** makes the node same-origin with a page: the page's own name is pointed at the node's
  address. The name stands in `Host`. So names are served that are known: `localhost`, those of the
  configuration and this machine's. An address that is written as numbers cannot be rebound, and is
  always served.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from functools import lru_cache
from urllib.parse import urlsplit

from allsource.storage.model.errors import Rejected

_NAME_MAX = 253
"""Characters of a host name (RFC 1035 §2.3.4)."""

_OWN_SITES = ("none", "same-origin")


class HostRefused(Rejected):
    """The `Host` of a request is no name of this node."""

    code = "host_refused"


class CrossSite(Rejected):
    """A page of another origin asked."""

    code = "cross_site"


class Hosts:
    """The names under which a node is served; `*.example.org` is each name below it, `*` is any."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        lowered = {name.lower().rstrip(".") for name in names}
        self._any = "*" in lowered
        self._names = {"localhost", *lowered}
        self._suffixes = tuple(name[1:] for name in lowered if name.startswith("*."))
        self._remembered = lru_cache(maxsize=256)(self._is_known)

    def __contains__(self, host: str) -> bool:
        return len(host) <= _NAME_MAX and self._remembered(host)

    def _is_known(self, host: str) -> bool:
        name = host.lower().rstrip(".")
        if self._any or name in self._names or name.endswith((".localhost", *self._suffixes)):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def check_source(headers: Mapping[str, str], hosts: Hosts) -> None:
    """Raise `HostRefused` or `CrossSite` if a browser may have been led here. Programs that send none of
    the headers are served."""
    host = headers.get("Host")
    if host and _name_of(host) not in hosts:
        shown = host[:100]
        raise HostRefused(
            f"this node does not serve under the name {shown!r}; if it should, add the name to "
            "http.allowed_hosts in the configuration"
        )
    site = headers.get("Sec-Fetch-Site", "none").lower()
    origin = headers.get("Origin")
    if site not in _OWN_SITES or (origin is not None and not _same(origin, host or "")):
        raise CrossSite("a web page of another origin may not use this API; a program sends no Origin")


def _name_of(host: str) -> str:
    """The name or address in a `Host`, without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _same(origin: str, host: str) -> bool:
    """Whether an origin is the one that was asked. A proxy may have changed the scheme."""
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        return False
    asked = _name_of(host).lower()
    asked_port = host.rpartition(":")[2] if not host.endswith("]") and ":" in host else ""
    is_usual = port in (None, 80, 443) and asked_port in ("", "80", "443")
    return parts.hostname == asked and (is_usual or str(port) == asked_port)
