"""`allsource bench`: how fast a cluster is, measured the way that its users would feel it.

Every figure comes from the client library against real processes. Closed loops: a worker sends its next
request when its last one was answered, so latencies hide no waiting. CPU time is the kernel's own
account (`/proc/PID/stat`), of the servers and of the client apart.
"""
