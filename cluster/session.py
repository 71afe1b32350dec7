"""SKELETON (API first; the code follows within minutes). Sans-I/O: bytes in -> events out, bytes to send.

Used by the server, by links between nodes, and by the client library's own small asyncio Protocol:

    session = ClientSession(DiallerConfig.client(secret), nonce=os.urandom(32))
    transport.writelines(session.take())            # HELLO is queued at once
    for event in session.receive(data):             # raises frames.ProtocolError; then close
        Established(welcome)                        # now requests may be sent
        Results([(request_id, Result | AllsourceError), ...])
    session.request(request_id, timeout_ms, request)   # queued; raises InvalidRequest / TooLarge
    session.take() -> list[bytes]                   # everything queued, cut into frames: once per loop turn

    session = ServerSession(AcceptorConfig(...), nonce=os.urandom(32))
        Established(hello) · Requests([(id, timeout_ms, request)]) · Messages([Message]) · BeatArrived(beat)
    session.reply(request_id, Result | AllsourceError); session.refuse(ProtocolError)

Shells (asyncio, uvloop), all callback style:

    cluster/server.py   Server(handler, acceptor: AcceptorConfig, host, port, ...)
                        await server.start() (raises CannotListen, an AllsourceError); server.port; await server.close()
        handler.request(connection, request_id, timeout_ms, request, forwarded: bool)
            -> later connection.reply(request_id, Result | AllsourceError)   (any time, also at once)
        handler.messages(peer: str, messages) · handler.beat(peer, beat) · handler.lost(peer)  (inbound EOF)
    cluster/peers.py    PeerLinks(addresses: {node_id: (host, port)}, config, listener, jitter)
                        start(); send_messages(peer, list); send_beat(peer, beat);
                        request(peer, request, timeout_ms, reply: Callable[[Result | AllsourceError], None]);
                        await close()
        listener.connected(peer, welcome) · listener.lost(peer) · listener.refused(peer, error: Exception)
            connected: once per outage, when both the data and the beat connection have finished their handshake
"""
