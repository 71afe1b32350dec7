"""The cluster room: who keeps and leads what, how nodes agree, and how they talk.

What lives here
    placement   who keeps a partition and who should lead it: two pure functions of the members
    liveness    one node's own view of which peers are alive
    registry    what one process knows: members, health, owners by placement, leaders by term
    router      where a request goes, or why nowhere
    requests    what can be asked of a cluster, and the answers
    consensus/  Raft for many partitions, a pure machine: facts in, orders out
    frames, codec, message_codec, handshake, session
                the peer protocol without I/O (PROTOCOL.md is its page)
    connection, server, peers
                its sockets: one connection, those who dial us, those whom we dial
    replica, syncer
                the shell of consensus: clock, disk, and the thread that syncs

What may not
    Only the last five do I/O. The others import no asyncio, socket, clock or random: time and
    randomness are passed in, so that a failover can be tested in a microsecond and replayed from a
    seed. Nothing here knows HTTP, the command line or the daemon; imports point down, to `storage`.

Trade-offs
    *Liveness, placement and voting are three things.* Each node judges for itself who is alive, and
    that moves leaderships only. Who keeps data follows membership, and who votes stands in each
    group's log. A wrong suspicion costs a moment of availability, never an event. The price is that
    views may differ for a while: two nodes may name different owners, and only the group's own
    election decides.

    *Placement has no memory.* Owners are a function of the members and the healthy ones alone, so
    registries need not be copied to agree. A lost node moves its own partitions only; a second loss
    may deal some of the first one's again, which a deal with a history would avoid.

    *A request goes to the leader that is*, which for a moment may not be the owner by placement.
"""
