"""The clients' key of a cluster whose file names none: derived from the nodes' key, one way.

Whoever holds it can be a client and nothing more: the nodes' key cannot be found from it, so it makes
nobody a peer. The construction is HKDF's expansion (RFC 5869) to one block, written as hexadecimal digits,
which fit into a YAML file, an environment variable and a line of `allsource config client-secret`.
"""

from __future__ import annotations

import hmac

_LABEL = b"allsource client secret"


def derived_client_secret(secret: str) -> str:
    """64 hexadecimal digits; always the same for the same `secret`."""
    return hmac.digest(secret.encode(), _LABEL + b"\x01", "sha256").hex()
