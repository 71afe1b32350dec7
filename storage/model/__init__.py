"""model: what an event is, where it belongs, and what a log record says. Pure.

What lives here
    errors      the one family of errors that every door, peer and client speaks
    partition   `EntityId` and `PartitionKey`: which of the 32 partitions a stream belongs to
    expected    what a writer expects of a stream
    arguments   what public calls are asked with, checked in one wording
    events      what an event is · `json_text`, `times`, `printable`
    chunks      events packed, compressed or not: the form in which they travel and lie
    append      the one decision: may an append happen, and as what
    answers     what public calls answer with
    entry       the log record (format 2): the appends of one turn, with their boundaries
    log         a partition's log as values: what a write changes, what a start reads
    identity    who a data directory is
    streams     `EventStream`, one stream as an aggregate
    writes      several writes of one partition folded into one
    recent      a bounded cache of what was used last · `packing`, values as msgpack
    audit       a log held against its indexes

What may not
    asyncio, threads, sockets, files, clocks, chance. Times are passed in, and so are ids, except that
    `events.new_event_id` draws one for an event that was given none. This folder imports nothing of ours
    but itself.
"""
