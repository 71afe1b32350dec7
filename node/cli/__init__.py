"""The command line: `allsource launch`, `status`, `append`, `read`, `checkpoint`, `drill`, and the rest.

What lives here: everything that a person types, and the control of node processes that `launch`, the
drills, the benchmark and the integration tests share (`processes`, `cluster`, `scratch`). What may not:
anything that a node needs in order to serve. Commands talk to a cluster as any user does, through
`allsource.client` and the HTTP door, so that a drill proves what users get.

Trade-offs. Commands are imported when they are called, so that a node process starts without paying
for the tables of the others. Programs get `--json` on standard output; progress and errors go to
standard error; the exit status is 0 only on success, and nobody ever sees a traceback.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line (without arguments: this process's own) and exit with its status."""
    try:
        from allsource.node.cli.app import run

        status = run(arguments)
    except KeyboardInterrupt:  # while the first modules were still being imported
        status = 130
    raise SystemExit(status)
