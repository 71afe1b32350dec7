"""control: nodes as processes of this machine, for `launch`, the drills, the benchmark and the tests.

`processes` starts, signals and watches one node, `cluster` a whole cluster of them; `adopted` finds a
node that somebody else started; `picture` reads what a node says of the cluster; `scratch` is a copy of
a cluster for the length of one command, on `ports` that are free.
"""
