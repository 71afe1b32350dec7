"""requests: from a door to an answer.

`service` decides where a request goes (here, forward, wait, refuse), `queue` is the bound in front of
the write path and `pace` how long a place in it takes, `ingest` is the write path (the pump), `log_view`
what the owner knows of a log when it decides about an append (`storage.model.append`), `reads` the read
path and `pages` what it finds, `tickets` a request under way and its deadline. `again` tries many anew, in
turns; `faults` are errors of our own, which cost one request.
"""
