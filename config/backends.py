"""What each storage backend can do. Code asks for that, never for a backend's name.

What must be known before a storage is opened stands here; what an open one can say of itself is in
`storage.interface.Storage`. A further backend is one more line here and one in `storage.open`.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import NamedTuple


class Traits(NamedTuple):
    """A backend's properties."""

    survives_restart: bool
    """A node that is started again has what it stored before, its votes too."""
    in_data_dir: bool
    """The events are in the node's `data_dir`."""
    in_server: bool
    """The events are in the server that `storage.dsn` names, which several nodes may share."""


BACKENDS = MappingProxyType(
    {
        "rocksdb": Traits(survives_restart=True, in_data_dir=True, in_server=False),
        "memory": Traits(survives_restart=False, in_data_dir=False, in_server=False),
        "postgres": Traits(survives_restart=True, in_data_dir=False, in_server=True),
    }
)
"""Name in the configuration -> traits. The first one is the default."""
