"""storage: events on a disk, and nothing about clusters.

What lives here
    model/      what an event is, where it belongs, what a log record says: pure
    interface   what a node asks of its storage, and the promises that go with it
    memory · rocksdb/ · postgres/
                the backends; `open` opens one by its name
    files/      data directories, checkpoints of them, disks that are full
    embedded/   the event store without any cluster; `repository` opens one by its URL

Each backend on its own, to be pasted into ``python -m asyncio``::

    from allsource.storage.model.events import NewEvent
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
    Sockets, other nodes, terms beyond storing them; asyncio only in `embedded`, in `postgres`, and where
    the sync thread tells its loop (`files.sync_thread`). This room imports nothing of ours but itself and
    `config.schema`; the pure modules no clock and no I/O.

Trade-offs
    *The log is the event store.* There is no second copy of the events by stream: a stream is read
    through an index of slices. One write instead of two, and they cannot disagree; in return a stream
    that is spread over many entries costs one lookup for each.

    *Nothing is written over.* A stream's creation is written once; its newest version, a tag's newest
    number and a mark are what their last slice or move says. A write asks nothing, a truncation deletes;
    in return the first look at a stream is a search. The owner keeps the heads that it used last in memory.

    *A tag is numbered where its events are.* All streams with one `{tag}` are in one partition, whose owner
    gives the numbers with the versions: no second sequence that could disagree.

    *RocksDB recovers up to the first broken record, and a mark of our own says whether that is far
    enough.* Its own modes either refuse to start after a power cut or overlook a log that was cut short
    (`rocksdb.database`, `files.synced`).

    *Nothing slows the writer.* RocksDB's stall triggers are off; `pressure` refuses new appends instead,
    long before (`rocksdb.pressure`).

    *A checkpoint is for reading, never for restarting a node.* It has forgotten votes and acknowledgements
    that were given after it (RULES.md rule 9), so its FORMAT says what it is, and only a repository
    opens it. `await events.checkpoint(path)` makes one; opening `path` is the restore.
"""
