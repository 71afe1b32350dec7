"""SKELETON (API first; the code follows within minutes). Pure state machines of CONSENSUS rule 10.

    Role.PEER / CLIENT, Channel.DATA / BEAT
    WireLimits(frame_bytes_max, event_bytes_max, append_bytes_max, append_events_max, inflight_requests_max)
    Welcome(cluster_id, node_id, replica_id, incarnation, version, partition_count, limits, addresses)
        addresses: dict[node_id, (host, port)]    what an accepted dialler learns
    Hello(... role, channel, cluster_id, node_id, replica_id, incarnation ...)   what the acceptor learns

    DiallerConfig(secret, identity: storage.interface.Identity, role, channel, expected_node, remembered)
        DiallerConfig.client(secret, cluster_id="", name="")   # "" = any cluster that knows the secret
    AcceptorConfig(secret, identity, members, welcome facts, remembered(node_id) -> replica_id | None,
        admit(Hello) -> ProtocolError | None)
"""
