"""rocksdb: the default storage of a node, and of a repository without a cluster.

What lives here
    keys        the bytes of keys and small values: their order is the order we want
    batch       one write of the interface as one RocksDB batch, indexes and truncation included
    storage     `RocksStorage`, the interface over both; `reading` is the half that only reads
    options     every option that is not RocksDB's default, and why
    opening     opening and recovery: up to the first broken record, and whether that is far enough
    database    a database that is open, with its lock and its syncs
    pressure    when appends are refused, long before RocksDB would slow them down
    checkpoint  a copy of a database that is open
    adoption    a copy becomes a store of its own
    figures     RocksDB's own figures, for the metrics

What may not
    Consensus, sockets, asyncio. `keys` is pure.
"""
