"""budgets: what others may cost a node: places, turns of its loop, bytes that it holds for them. Pure.

`strangers` keeps few of those who have proved nothing; `turns` deals a share of each loop turn to all who
ask for work; `intake` takes a connection's requests apart in such shares, `deliveries` a peer's messages;
`holdings` counts what is held for whom, and says who holds most when it is too much. `descriptors` deals
the files that the process may open among the doors. Time is passed in.
"""
