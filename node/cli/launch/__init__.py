"""`allsource launch`: every node of a file as a child process of one command, on one machine.

`supervisor` starts, watches, restarts and stops the children and says what happens (events);
`watch` asks the nodes how they are; `table` and `lines` show it to people, or to pipes: `sight` reads what
the kernel and the disk know besides, and `overview` and `layout` (pure) work out what the table says.
For production, run `allsource node` under the machine's own supervisor, one for each node.
"""
