"""storage: events on a disk, and nothing about clusters.

What lives here
    pure        `errors`, `partition`, `expected`, `events` (what an event is and where it belongs),
                `entry` (the log record), `writes`, `keys` (bytes in RocksDB), `audit` (a log against
                its indexes)
    interface   what a node asks of its storage, and the promises that go with it
    backends    `memory` · `rocksdb` with `rocksdb_batch`, `rocksdb_opening`, `rocksdb_database`,
                `rocksdb_options`, `rocksdb_pressure`, `rocksdb_figures` · `postgres/`, with a page of its
                own · `open` knows them by name
    directory   whose a data directory is, who has it open, how far it was synced
    copies      `checkpoint` (how a copy comes into being, whole or not at all), `rocksdb_checkpoint` (of an
                open RocksDB), `rocksdb_adoption` (a copy becomes a store of its own)
    on its own  `repository` opens an event store without any cluster: `stream_repository` is what all
                have in common, `log_repository` stands on a storage (with `group_sync`), `answers` are
                the values, `streams` the pure `EventStream`

Each backend on its own, to be pasted into ``python -m asyncio``::

    from allsource.storage.events import NewEvent
    from allsource.storage.repository import open_repository

    async with open_repository("memory://") as events:  # gone when this block ends: for tests
        await events.append_to_stream("order-1", [NewEvent.json("OrderPlaced", {"total": 42})])
        print(await events.get_watermark("order-1"))

    async with open_repository("rocksdb:///var/lib/shop") as events:  # one process at a time
        await events.append_to_stream("order-1", [NewEvent.json("OrderPlaced", {"total": 42})], "no_stream")
        print([event.json() for event in await events.read_stream("order-1")])

    async with open_repository("postgresql://user:password@localhost/shop") as events:  # many processes
        await events.append_to_stream("order-1", [NewEvent.json("OrderPlaced", {"total": 42})], "no_stream")
        print([event.json() for event in await events.read_stream("order-1")])

What may not
    Sockets, other nodes, terms beyond storing them; asyncio only in what stands on its own and in
    `postgres`. This room imports nothing of ours but itself and `config.schema`; the pure modules no
    clock and no I/O.

Trade-offs
    *The log is the event store.* There is no second copy of the events by stream: a stream is read
    through an index of slices. One write instead of two, and they cannot disagree; in return a stream
    that is spread over many entries costs one lookup for each.

    *Heads are kept, not derived.* Every append rewrites its stream's head (0.9 us), so that a version
    check is one lookup, not a search.

    *RocksDB recovers up to the first broken record, and a mark of our own says whether that is far
    enough.* Its own modes either refuse to start after a power cut or overlook a log that was cut short
    (`rocksdb_database`, `directory.SyncedMark`).

    *Nothing slows the writer.* RocksDB's stall triggers are off; `pressure` refuses new appends instead,
    long before (`rocksdb_pressure`).

    *A checkpoint is for reading, never for restarting a node.* It has forgotten votes and acknowledgements
    that were given after it (CONSENSUS.md rule 9), so its FORMAT says what it is, and only a repository
    opens it. `await events.checkpoint(path)` makes one; opening `path` is the restore.
"""
