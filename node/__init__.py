"""One process of the cluster: boot, the service behind every door, and what runs on the command line.

Here lives what ties the other rooms together in a running node. What decides without touching anything
belongs below: placement, routing and consensus in `cluster`, formats and indexes in `storage`.

Read in this order: `daemon` (boot and shutdown, each on one screen, and the exit statuses), `formation`
(why the first start needs everybody), `member` (a node that takes part: replica, service, write path
and reads wired together), `front` (what doors talk to before and after that), `service` (here, forward,
park or refuse), `ingest` and `admission` (the write path: the pump, and the pure decision in it),
`reads`, `tickets` (a request under way and its deadline), `queue`, `pages` (what a read finds), `again`
(many requests tried anew), `faults` (errors of ours). `measures`, `metrics`, `histogram` and
`prometheus` count; `view` draws `GET /v1/cluster`; `checkpoints` copies what is stored; `logging` sets
structlog up. The doors are `http/` and `wire/`, thin over the service; `cli/` is the `allsource`
command.

Trade-offs: one event loop does everything but fsync, in callbacks and in batches of a loop turn,
because a task or future for each request costs more than the request; so nothing here may block, and
storage promises short calls. A request that meets an election is parked and tried again with the same
event ids rather than refused, which turns most failovers into a slower answer. A forwarded request
makes one hop, or two where only a peer reaches the leader, never three. An assertion of ours that
fails, or a failed sync, ends the process: the others go on, and a node that distrusts its own state
must not speak.
"""
