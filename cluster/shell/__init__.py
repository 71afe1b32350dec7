"""shell: carries out what consensus decides.

`replica` gives the pure machine the time and the messages, and carries out its orders in their order. The
thread that waits for the disk is `storage.files.sync_thread`.
"""
