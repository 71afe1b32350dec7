"""transport: the sockets of the peer protocol, and nothing that decides.

`connection` is one connection, `server` those who dial us, `peers` those whom we dial, each over a `link`
that is dialled again for ever. What a byte means is said in `cluster.protocol`, what it may cost in
`cluster.budgets`.
"""
