"""Consensus: one Raft group for each partition, all groups of a node in one pure machine.

Here lives what decides who leads, what is committed, and what must be durable before it is said; the
rules are quoted by number from RULES.md where they are kept. Nothing here does I/O, reads a clock
or draws a random number that was not seeded: a failover is tested without a socket, and a whole
cluster with its crashes runs in one process (`tests/simulation`).

Read in this order: `messages` (what is said, and `Ready`, the orders to the shell), `log`, `voter`
(who leads a partition's group, with `candidacy`, when to stand, and `ballot`), `group` (what
happens to its log), `leadership` and `progress` (what only a leader has), `quorum`, `reads`
(linearizable reads), `lanes` (what arrives, or would), `flow` (how much is sent), `sense` (what a
peer may say), `balance` (who should lead), `syncs` (what waits for which sync), `multiraft` (where
the groups meet the failure detector and the registry) and `questions` (what others may ask it).

Trade-offs: Python runs some ten microseconds per entry and group turn, so everything is batched per
turn of the event loop; there are no snapshots, because the log is the event log and is never compacted;
joint consensus is understood everywhere (`quorum`, configuration entries) but no command starts one yet.
"""
