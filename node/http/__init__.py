"""The HTTP door: JSON (or msgpack) in, one question to the service, an answer with an honest status.

It lives here so that nothing else has to know HTTP. A request is read strictly (`bodies`, `queries`,
`appends`), becomes one of `cluster.requests`, goes to the service, and its result or error becomes a
body (`answers`) or an error with the status that tells the caller what to do next (`errors`). The door
decides nothing about partitions, owners or versions, keeps no state, and never sees storage.

Trade-offs made here:

* JSON data is kept byte for byte: numbers, order of keys and white space are the writer's. So other white
  space in a retry makes another event of it, which is answered as a conflict of ids.
* Bodies are decoded by their shape, and data is checked and skipped, never built (`rawjson`,
  `msgpack_bodies`): what a few bytes may become is bounded by what they are.
* Unknown keys and query parameters are refused. A misspelt `expected_version` that was ignored would
  append without the check that its sender relied on.
* aiohttp costs some 100-200 us of CPU for each request. Who needs more speed uses the msgpack port.
"""

from allsource.node.http.app import Service, make_app
from allsource.node.http.server import HttpServer

__all__ = ["HttpServer", "Service", "make_app"]
