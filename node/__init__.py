"""One process of the cluster: boot, the service behind every door, and what runs on the command line.

Here lives what ties the other rooms together in a running node. What decides without touching anything
belongs below: placement, routing and consensus in `cluster`, formats and indexes in `storage`.

What lives here
    daemon         boot and shutdown, each on one screen, and the exit statuses
    assembly       builds a node and a member from their parts, whole
    part           how this node takes part: an outsider at first, then a member
    view           what a node says of itself · checkpoints   copies of what is stored
    formation/     why the first start needs everybody, and what nodes remember of each other
    member/        turns of a replica on the event loop, and what is done with their outcomes; damage, watch
    requests/      from a door to an answer: service, queue, pump, reads
    observe/       log and metrics: told, never decided
    http/ · wire/  the doors, thin over the service
    cli/           the `allsource` command

Trade-offs: one event loop does everything but fsync, in callbacks and in batches of a loop turn,
because a task or future for each request costs more than the request; so nothing here may block, and
storage promises short calls. A request that meets an election is parked and tried again with the same
event ids rather than refused, which turns most failovers into a slower answer. A forwarded request
makes one hop, or two where only a peer reaches the leader, never three. An assertion of ours that
fails, or a failed sync, ends the process: the others go on, and a node that distrusts its own state
must not speak.
"""
