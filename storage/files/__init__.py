"""files: data directories, whatever database is in them.

`directory` claims one for this process, `format` is the file that says whose it is, `synced` how far its
database is known to be durable, and `durable` how such small files are written. `checkpoint`
makes a copy of one come into being, whole or not at all. `sync_thread` is the one thread that waits for the
disk, of a node and of an embedded store. `room` is a full disk by any of its names, and `descriptors` how
many open files the database may have. Nothing here knows what the database writes.
"""
