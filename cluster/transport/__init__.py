"""transport: the sockets of the peer protocol, and nothing that decides.

`server` (with `server_connection`) has those who dial us, `peers` those whom we dial, each over a `link`
that is dialled again for ever. What clients do as well stands in `cluster.sockets`: a connection, and
dialling. What a byte means is said in `cluster.protocol`, what it may cost in `cluster.budgets`.
"""
