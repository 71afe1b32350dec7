"""protocol: the peer protocol without I/O. PROTOCOL.md beside this file specifies it.

What lives here
    frames      cuts a stream of bytes into frames
    kinds       the table of frames: who sends which, on what connection, how large
    payload     opens a frame's payload, with care for what it may cost
    shapes      from the elements of an array to the functions that read and list it
    codec       the tables of requests and results; `requests` has their classes
    quick       the same values of the frames that nearly all are, in a third of the time
    message_codec
                the table of consensus messages, and beats
    handshake   who is let in · `handshake_frames` how that is sealed · `acquaintance` what nodes remember
                of each other's starts
    redial      how long to wait before dialling again
    session     one connection from its first byte to its last: bytes in, bytes and events out
    node_session
                the same for what only nodes speak

Pure, so that hostile bytes can be tried without a socket. A client loads all of this but `message_codec`
and `node_session`: the code of consensus stands behind those two.

To add a message, give it a class, a row in its table, a row in PROTOCOL.md, and a sample in the tests
(`tests/cluster/protocol/wire_samples.py`).
"""
