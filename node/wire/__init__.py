"""The msgpack door: requests of native clients and of forwarding peers, handed to the service.

What lives here: the glue between the peer protocol's server (`cluster.transport.server`) and the service,
and nothing else. Frames, handshakes, batches and back-pressure are the transport's; routing, deadlines
and outcomes are the service's. Consensus messages come in by the same port and pass straight through to
the member.

The trade-off: clients and peers share one port and one frame grammar, so that a forwarded request is
the very request that the client sent. In return the door must keep them apart in one respect: what
came from a peer is `forwarded`, and goes no further.
"""
