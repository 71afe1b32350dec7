"""embedded: the event store in a program of its own, without any cluster.

What lives here
    stream_repository  `EventStreamRepository`, what all backends promise
    questions          what a repository is asked, checked alike for all backends
    log_repository     one over a `Storage`: in memory, or in RocksDB
    group_sync         many waiting writers, one fsync (`storage.files.sync_thread`)

`storage.repository` opens one by its URL. PostgreSQL's repository lives beside its driver, in
`storage.postgres`. Nothing here knows a cluster.
"""
