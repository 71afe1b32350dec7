"""The node's log never raises and never waits, whatever becomes of standard error (rule 31)."""

from __future__ import annotations

import io
import json
import logging
import os
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from typing import Any

import pytest
import structlog

from allsource.config.schema import LogSettings
from allsource.node.observe.log_sink import LINE_BYTES_MAX, QUEUED_BYTES_MAX, LogSink, SinkStream, output_to
from allsource.node.observe.logging import node_log

PATIENCE_S = 60.0


class Disk:
    """An output that fails while told to."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.text = b""

    def __call__(self, raw: bytes) -> None:
        if self.error is not None:
            raise self.error
        self.text += raw


def note(lines: int) -> str:
    return f"{lines} are missing"


@pytest.mark.parametrize(
    "error", [BrokenPipeError(32, "EPIPE"), OSError(28, "ENOSPC"), ValueError("closed file")]
)
def test_what_cannot_be_written_is_counted_and_told_when_writing_works_again(error: Exception) -> None:
    disk = Disk()
    sink = LogSink(disk, note)
    sink.write("one")
    assert sink.drain(PATIENCE_S)
    disk.error = error
    for line in ("two", "three"):
        sink.write(line)
        assert sink.drain(PATIENCE_S)
    assert sink.lost == 2
    disk.error = None
    sink.write("four")
    sink.write("five")
    assert sink.drain(PATIENCE_S)
    assert disk.text.decode().splitlines() == ["one", "four", "2 are missing", "five"] or (
        disk.text.decode().splitlines() == ["one", "four", "five", "2 are missing"]
    )


LINE = "x" * 1000
TOO_MANY = 5 * QUEUED_BYTES_MAX // len(LINE)
"""Lines that no pipe and no queue hold."""


def told(text: bytes) -> int:
    """How many lines are missing, after what was written. It may have been told in several notes."""
    return sum(int(line.split()[0]) for line in text.splitlines() if line.endswith(b" are missing"))


def test_a_reader_that_reads_no_more_holds_nobody_up() -> None:
    with a_pipe() as pipe:
        sink = LogSink(output_to(Descriptor(pipe.writing)), note)
        for _ in range(TOO_MANY):  # nobody reads the pipe
            sink.write(LINE)
        assert sink.lost > 0
        assert sink.drain(0.01) is False
        pipe.read_until(
            lambda text: text.count(LINE.encode()) == TOO_MANY - sink.lost == TOO_MANY - told(text)
        )
        assert sink.drain(PATIENCE_S)
        pipe.close_reading()
        sink.write("nobody is there")
        assert sink.drain(PATIENCE_S)
    sink.write("it is closed")
    assert sink.drain(PATIENCE_S)


def test_what_was_left_out_at_several_times_is_told_each_time() -> None:
    """A line is left out, the writing goes on, another is left out: neither may be forgotten."""
    disk, begins, goes_on = Disk(), threading.Semaphore(0), threading.Semaphore(0)

    def when_it_goes_on(raw: bytes) -> None:
        begins.release()
        assert goes_on.acquire(timeout=PATIENCE_S)
        disk(raw)

    sink = LogSink(when_it_goes_on, note)
    lost: list[int] = []
    sink.write(LINE)
    for _ in range(3):
        assert begins.acquire(timeout=PATIENCE_S)  # nothing else waits to be written
        before = sink.lost
        while sink.lost == before:
            sink.write(LINE)
        lost.append(sink.lost - before)
        goes_on.release()
    goes_on.release()
    assert sink.drain(PATIENCE_S)
    assert sink.lost == sum(lost)
    notes = [line for line in disk.text.decode().splitlines() if line != LINE]
    assert notes == [note(lines) for lines in lost]


class Pipe:
    """A pipe that is read with patience: what does not come fails a test and does not hang it."""

    def __init__(self, reading: int, writing: int) -> None:
        self._reading = reading
        self.writing = writing

    def read_until(self, condition: Callable[[bytes], bool]) -> bytes:
        """Read until what was read fulfils the condition."""
        found = b""
        while not condition(found):
            assert select.select([self._reading], [], [], PATIENCE_S)[0], found[-200:]
            found += os.read(self._reading, 1 << 20)
        return found

    def close_reading(self) -> None:
        """Nobody will read it any more."""
        if self._reading >= 0:
            os.close(self._reading)
            self._reading = -1


@contextmanager
def a_pipe() -> Iterator[Pipe]:
    pipe = Pipe(*os.pipe())
    try:
        yield pipe
    finally:
        pipe.close_reading()
        os.close(pipe.writing)


class Descriptor:
    """A stream that is nothing but a descriptor."""

    def __init__(self, number: int) -> None:
        self._number = number

    def fileno(self) -> int:
        return self._number

    def write(self, text: str, /) -> int:
        raise AssertionError


def test_a_descriptor_that_somebody_made_non_blocking_is_waited_for() -> None:
    with a_pipe() as pipe:
        os.set_blocking(pipe.writing, False)
        sink = LogSink(output_to(Descriptor(pipe.writing)), note)
        for number in range(40):
            sink.write(f"{number:>8}" * 1000)
        pipe.read_until(lambda text: text.count(b"\n") == 40)
        assert sink.drain(PATIENCE_S)
        assert sink.lost == 0


def test_a_line_has_a_bound_and_any_characters() -> None:
    disk = Disk()
    sink = LogSink(disk, note)
    sink.write("x" * (LINE_BYTES_MAX + 1))
    sink.write("\ud800")
    assert sink.drain(PATIENCE_S)
    long, odd = disk.text.splitlines()
    assert len(long) == LINE_BYTES_MAX
    assert long.endswith(b"(cut)")
    assert odd == b"\\ud800"


def test_many_threads_lose_no_line() -> None:
    disk = Disk()
    sink = LogSink(disk, note)
    threads = [
        threading.Thread(target=lambda n=n: [sink.write(f"{n}-{i}") for i in range(200)])  # type: ignore[misc]
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sink.drain(PATIENCE_S)
    assert sorted(disk.text.decode().split()) == sorted(f"{n}-{i}" for n in range(8) for i in range(200))


def test_what_is_printed_arrives_by_lines() -> None:
    disk = Disk()
    sink = LogSink(disk, note)
    stream: Any = SinkStream(sink, io.StringIO())
    print("a", "b", file=stream)
    print("half", end="", file=stream)
    assert sink.drain(PATIENCE_S)
    assert disk.text == b"a b\n"
    stream.flush()
    assert sink.drain(PATIENCE_S)
    assert disk.text == b"a b\nhalf\n"


# -- the whole log


class Odd:
    def __repr__(self) -> str:
        raise RuntimeError("no words")

    __str__ = __repr__


@pytest.mark.parametrize("format", ["console", "json"])
def test_an_object_that_cannot_be_rendered_costs_only_its_details(format: Any) -> None:
    with redirect_stderr(io.StringIO()) as stderr, node_log(LogSettings(format, "info"), "n1") as log:
        log.info("odd one", what=Odd())
        log.info("next one")
    lines = stderr.getvalue().splitlines()
    assert "odd one" in lines[0]
    assert "next one" in lines[1]


@pytest.mark.parametrize("format", ["console", "json"])
def test_tracebacks_hold_no_values_of_variables(format: Any) -> None:
    def fails() -> None:
        secret = "-".join(("hunter", "2"))
        raise ValueError(len(secret))

    with redirect_stderr(io.StringIO()) as stderr, node_log(LogSettings(format, "info"), "n1") as log:
        try:
            fails()
        except ValueError:
            log.exception("one")
            structlog.get_logger("allsource.http").exception("two")
            logging.getLogger("aiohttp.server").exception("three")
    text = stderr.getvalue()
    assert text.count("ValueError") >= 3
    assert "hunter-2" not in text


@pytest.mark.parametrize("format", ["console", "json"])
def test_a_peers_words_do_nothing_to_a_terminal(format: Any) -> None:
    evil = "\x1b]0;owned\x07\x9b2J\u202e\u200b\nforged line"
    with redirect_stderr(io.StringIO()) as stderr, node_log(LogSettings(format, "info"), "n1") as log:
        log.warning(evil, reason=evil, several=[evil], odd=Odd(), peer=evil)
        log.warning("well", reason=evil, several=[evil])
        try:
            raise ValueError(evil)
        except ValueError:
            log.exception("failed", peer=evil)
    text = stderr.getvalue()
    assert text.replace("\n", "").isprintable()
    assert "owned" in text
    assert [line for line in text.splitlines() if "well" in line and "forged line" in line]


def test_what_libraries_say_and_print_goes_the_same_way() -> None:
    with redirect_stderr(io.StringIO()) as stderr, node_log(LogSettings("json", "info"), "n1"):
        logging.getLogger("asyncio").error("Exception in callback %s", "f")
        (bridge,) = [one for one in logging.getLogger().handlers if type(one).__name__ == "_Bridge"]
        odd = logging.LogRecord("asyncio", logging.ERROR, "", 1, "%d arguments", ("wrong",), None)
        bridge.handle(odd)
        print("a warning", file=sys.stderr)
    first, second, third = stderr.getvalue().splitlines()
    assert json.loads(first)["event"] == "Exception in callback f"
    assert json.loads(first)["node"] == "n1"
    assert json.loads(second)["event"] == "%d arguments"
    assert third == "a warning"
    assert bridge not in logging.getLogger().handlers


def fill(pipe: int) -> None:
    """Write to a pipe that nobody reads until it takes no more."""
    os.set_blocking(pipe, False)
    with suppress(BlockingIOError):
        while True:
            os.write(pipe, b"x" * 4096)
    os.set_blocking(pipe, True)


def test_a_last_word_waits_a_moment_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    with a_pipe() as pipe, open(pipe.writing, "w", encoding="utf-8", closefd=False) as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        with node_log(LogSettings("console", "info"), "n1") as log:
            log.critical("the end")
            pipe.read_until(lambda text: b"the end" in text)
            fill(pipe.writing)
            begun = time.monotonic()
            log.critical("nobody hears it")
            assert time.monotonic() - begun < PATIENCE_S
            pipe.read_until(lambda text: b"nobody hears it" in text)  # the sink is done with the pipe
