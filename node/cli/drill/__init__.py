"""Drills: hurt a real cluster while it is written to, then compare what it holds with what it said.

`writers` write and record (`history`), `rounds` hurts and waits, `readback` reads every replica, `checks`
judges (pure), `report` tells. A drill uses what users use: the client library, signals, the HTTP door.
It trusts nothing that the cluster says about itself, except when it waits for the cluster to be well.

Unless it is told to take a running one, it hurts a copy of the cluster, and leaves nothing of that behind
(`scratch`, beside this folder), except after a failure. On storage in memory what is killed stays dead: a
node that has forgotten its votes is refused by its peers, so the drill ends while a majority is left.
"""
