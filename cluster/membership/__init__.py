"""membership: who is a member, who is alive, who should own what, where a request goes. Pure.

`placement` is two functions of the members alone; `liveness` is one node's own view of its peers;
`registry` (the `NodeRegistry`) is what one process knows; `hearsay` is whom the peers say they follow;
`router` (the `RequestRouter`) answers: here, at that node, through that one, or nowhere and why. `clocks`
tells the time as a majority sees it, for labels alone. No clock, no socket, no chance: `now` is passed in.
"""
