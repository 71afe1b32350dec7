"""protocol: the peer protocol without I/O. PROTOCOL.md beside this file specifies it.

`frames` cuts a stream of bytes into frames, `codec` and `message_codec` say what is in them, `handshake`
(with `handshake_frames` and `acquaintance`, what nodes remember of each other's starts) decides who is let
in, `session` is one connection from its first byte to its last: bytes in, bytes and events out. `requests`
is what can be asked of a cluster, and the answers. Pure, so that hostile bytes can be tried without a
socket.

A client loads all of this but `message_codec` and `node_session`: they are what only nodes speak, and the
code of consensus stands behind them.
"""
