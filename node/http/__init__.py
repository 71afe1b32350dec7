"""The HTTP door: JSON (or msgpack) in, one question to the service, an answer with an honest status.

It lives here so that nothing else has to know HTTP. A request is read strictly (`bodies`, `queries`,
`appends`), becomes one of `cluster.protocol.requests`, goes to the service, and its result or error
becomes a body (`answers`) or an error with the status that tells the caller what to do next (`errors`).
The door decides nothing about partitions, owners or versions, keeps no state, and never sees storage.

Whoever reaches the port may send anything, so what that costs is bounded before it is paid::

    listener     accepts as many connections as there are places (`budgets.descriptors`)
    connection   each has a phase with a deadline or a least rate (`patience`), and counts what it holds
    door         places, bytes (`limits.held_bytes_max`) and turns of the loop (`rations`) of all together
    guards       known hosts, no pages of other origins
    bodies       JSON or msgpack, not compressed, not larger than an append can be
    rawjson, json_bodies, msgpack_bodies   decoded by shape; large ones beside the loop
    complaints   what the log hears of callers: one short line of each kind now and then

Trade-offs made here:

* JSON data is kept byte for byte: numbers, order of keys and white space are the writer's. So other white
  space in a retry makes another event of it, which is answered as a conflict of ids.
* Bodies are decoded by their shape, and data is checked and skipped, never built (`rawjson`,
  `msgpack_bodies`): what a few bytes may become is bounded by what they are.
* Unknown keys and query parameters are refused. A misspelt `expected_version` that was ignored would
  append without the check that its sender relied on.
* aiohttp costs some 100-200 us of CPU for each request. Who needs more speed uses the msgpack port.
"""
