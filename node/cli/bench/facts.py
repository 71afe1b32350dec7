"""On what a benchmark ran: without it no figure means anything."""

from __future__ import annotations

import os
import platform
import tempfile
import time
from pathlib import Path

from allsource.config.promise import promise_of
from allsource.config.schema import Settings
from allsource.node.cli.bench.events import Events
from allsource.node.cli.figures import percentile, show_ms

_SYNCS = 50
_BLOCK = b"\0" * 4096


def machine_facts(settings: Settings, directory: Path, seconds: float) -> dict[str, str]:
    """Machine and settings, by name."""
    durability = promise_of(settings).durability
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores, shared by servers and client",
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "disk": f"{_filesystem(directory)}; fdatasync of 4 KiB {show_ms(_sync_s(directory))} ms (median)",
        "cluster": f"{len(settings.nodes)} nodes, {settings.partitions} partitions, each on"
        f" {settings.replication_factor} nodes; storage {settings.storage.backend},"
        f" durability {durability}",
        "workload": f"events of {Events().average_bytes} bytes of JSON on average, of five kinds;"
        f" {seconds:g} s each after a warm-up",
    }


def _processor() -> str:
    """The processor's model (Linux), else what Python knows."""
    path = Path("/proc/cpuinfo")
    for line in path.read_text().splitlines() if path.exists() else ():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.machine()


def _filesystem(directory: Path) -> str:
    """The type of the file system that holds the directory: the longest mount point above it."""
    mounts = Path("/proc/mounts")
    best, kind = "", "unknown file system"
    for line in mounts.read_text().splitlines() if mounts.exists() else ():
        _, point, type_, *_ = line.split()
        if directory.resolve().is_relative_to(point) and len(point) >= len(best):
            best, kind = point, type_
    return kind


def _sync_s(directory: Path) -> float:
    """Median time of a small write and `fdatasync`, in seconds."""
    times = []
    with tempfile.TemporaryFile(dir=directory) as file:
        for _ in range(_SYNCS):
            begun = time.perf_counter()
            file.write(_BLOCK)
            file.flush()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - begun)
    return percentile(times, 50)
