"""postgres: events in a PostgreSQL server, for those who want to ask for them in SQL.

What lives here
    the server   `driver` (asyncpg when it is wanted, where the server is, what its errors mean) ·
                 `migrations/` (the schema, plain SQL, version by version) · `migrate` (bringing a schema
                 up to date, refusing one that is not ours) · `tables` (writing `events`, `event_streams`
                 and `marks`)
    repository   `PostgresEventStreamRepository`: appends are transactions (`appending`) on connections of
                 a `pool`; many processes may share it
    a node       `storage` (the node's `Storage`; `reading` is the half that only reads) over `overlay`
                 (what is not in the database yet), `seen` (what need not be asked), `partition_log`,
                 `log_tables` and `log_indexes` (statements) and `session` (connections, the lock, syncs)
                 on `bridge` (a private event loop); `projection` copies what the cluster has committed
                 to the tables that people query

An example, to be pasted into ``python -m asyncio``: what is appended can be asked for in SQL::

    import asyncpg
    from allsource.storage.model.events import NewEvent
    from allsource.storage.repository import open_repository

    url = "postgresql://user:password@localhost/shop"
    async with open_repository(url) as events:  # makes the schema `allsource`, or brings it up to date
        await events.append_to_stream("order-1", [NewEvent.json("OrderPlaced", {"total": 42})], "no_stream")

    connection = await asyncpg.connect(url)
    rows = await connection.fetch("SELECT stream_id, payload ->> 'total' FROM allsource.events")
    print([tuple(row) for row in rows])
    await connection.close()

What is not here
    asyncio in what a node calls (`storage`, `reading`): asyncpg forces it on what stands behind that, and
    `bridge` keeps it there. Nothing imports asyncpg before somebody asks for PostgreSQL.

Trade-offs
    *Two layouts in one schema.* A node must be able to cut its log; people must never see what was cut. So
    the log has tables of its own, and `events` is a copy that follows the commit index a moment later. It
    costs the disk twice. A repository has no log: a committed transaction is the truth.

    *Payloads are kept twice*, as JSONB to query and as bytes: JSONB drops the order and spelling of what
    it is given and cannot hold everything that JSON can (`\\u0000`).

    *A sync is one statement* that takes arrays, so one round trip and one transaction whatever it carries:
    a tenth of the time of a statement for each entry.

    *Versions are checked twice*: by us under the partition's row lock, and by the statement that writes,
    which moves a stream only from the version that was seen. So also those who write by hand cannot make
    two events of one version.

    *A tag's newest number is looked up, not kept:* one look into the index that makes its numbers unique
    costs an append less than a row of its own that every append would write again.

    *Every move of a mark stays in a node's log tables*, because a mark is asked for as it was at the commit
    index and a truncation must find the one before.

    *A filter of 10 bits for each event id* answers "appended before?" with a certain no in 2 us instead
    of 150 us. It is read from the log at every start, in the background: a second for a million appends.
"""
