"""shell: carries out what consensus decides.

`replica` gives the pure machine the time and the messages, carries out its orders in their order, and
returns what came of them. It knows no event loop and calls nobody above: `node.member.driver` gives it its
turns.
"""
