"""sockets: what a node and a client both need of sockets.

What lives here
    connection  one socket and its session: the same few calls in the same order
    dialling    reaching one address: resolve, connect, and again when that failed or ended

What may not
    Anything that only nodes need: a client loads this folder, and consensus is not behind it. What is
    decided (what a byte means, when to dial again) stands in `cluster.protocol`, which is pure; that is why
    this folder is one of its own.
"""
