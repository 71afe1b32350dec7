"""formation: who may take part, and what nodes remember of each other for that.

What lives here
    formation      what a node must never forget of itself and of the others; its `Standing`
    acquaintances  what its handshakes ask and learn, and when the process must end because of it
    encounters     what its links tell: peers that are reached, lost, or of another mind
"""
