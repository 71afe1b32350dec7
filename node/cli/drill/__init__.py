"""Drills: hurt a real cluster while it is written to, then compare what it holds with what it said.

`writers` write and record (`history`), `rounds` hurts and waits, `readback` reads every replica, `checks`
judges (pure), `report` tells. A drill uses what users use: the client library, signals, the HTTP door.
It trusts nothing that the cluster says about itself, except when it waits for the cluster to be well.
"""
