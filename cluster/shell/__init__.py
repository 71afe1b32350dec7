"""shell: carries out what consensus decides.

`replica` gives the pure machine the time and the messages, and carries out its orders in their order;
`syncer` is the one thread that may block on the disk.
"""
