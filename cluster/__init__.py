"""The cluster room: who keeps and leads what, how nodes agree, and how they talk.

What lives here
    consensus/   Raft for many partitions, a pure machine: facts in, orders out. RULES.md is its law
    membership/  who is a member, who is alive, who should own what, where a request goes: pure
    protocol/    the peer protocol without I/O: bytes in, bytes and events out. PROTOCOL.md is its page
    budgets/     what others may cost: places, turns of the loop, bytes: pure
    sockets/     what a client needs of sockets too: one connection, and dialling
    transport/   the sockets of a node: those who dial us, those whom we dial
    shell/       carries out what consensus decides: clock, disk, and the thread that syncs

What may not
    Only `sockets`, `transport` and `shell` do I/O. The others import no asyncio, socket, clock or random:
    time and randomness are passed in, so that a failover can be tested in a microsecond and replayed from a
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
