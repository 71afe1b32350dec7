"""member: a node that takes part in its cluster.

What lives here
    assembly   builds a member
    driver     gives the replica its turns on the event loop, and stops it when something raises
    member     acts on what the turns bring; life and facts of one member
    watch      what a member looks at now and then: its peers, its disk, its clock
    damage     partitions whose copy here is damaged, remembered
    ending     how a process ends at once

No socket and no file is opened here, so a whole cluster of members can run inside one test, over storage
and links of the test's own.
"""
