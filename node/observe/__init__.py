"""observe: what a node says of itself to those who run it.

`measures` is what the paths record, in their own words; `metrics` and `histogram` keep it without a lock;
`prometheus` prints it. `logging` is the log, on `log_sink`, which never raises and never blocks;
`leadership` tells many changes in one line, and `reminder` says how often a lasting condition is told.
Nothing here may decide anything, and no decision may wait for it.
"""
