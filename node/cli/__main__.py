"""`python -m allsource.node.cli` is the `allsource` command; `launch` starts its nodes this way."""

from allsource.node.cli import main

main()
