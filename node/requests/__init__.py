"""requests: from a door to an answer.

Where a request goes is decided by `RequestRouter` (`cluster.membership.router`). What lives here
    service     does what the router says, for each attempt of a request
    forwarding  requests that a peer has · parking   those that wait for an owner
    again       many that are begun anew, in turns
    queue       the bound in front of the write path · pace   how long a place in it takes
    ingest      the write path (the pump) · lanes   what it has under way · answering   when it is answered
    log_view    what the owner knows of a log when it decides about an append (`storage.model.append`)
    reads       the read path · pages   what it finds · runs   how much of it · entries   a cache before it
    tickets     a request under way, and its deadline
    faults      errors of our own, which cost one request
"""
