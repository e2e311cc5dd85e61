"""Describes the machine and the software that figures were taken with."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from pathlib import Path

import attrs

from benchmarks import building


@attrs.frozen
class Machine:
    """Where and when. Words, for people; nothing is computed from it."""

    processor: str
    processors: int
    memory_bytes: int
    virtualization: str
    kernel: str
    system: str
    python: str
    compiler: str
    revision: str
    """The commit that was measured, "+ changes" if there are any."""
    taken_at: str
    """UTC, ISO 8601."""
    load_before: float
    """Of the last minute (proc_loadavg(5)), before the first measurement. On a busy machine figures mean little."""


def describe() -> Machine:
    """This machine, now."""
    cpu = _fields("/proc/cpuinfo")
    is_virtual = "hypervisor" in cpu.get("flags", "").split()
    release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    return Machine(
        processor=cpu.get("model name", platform.machine()),
        processors=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        virtualization="virtual machine" if is_virtual else "",
        kernel=f"{platform.system()} {platform.release()} {platform.machine()}",
        system=release.get("PRETTY_NAME", "").strip('"'),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        compiler=_output(building.compiler(), "--version").partition("\n")[0],
        revision=_revision(),
        taken_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        load_before=os.getloadavg()[0],
    )


def _fields(path: str) -> dict[str, str]:
    """The first block of a file of lines "name : value"."""
    block = Path(path).read_text().partition("\n\n")[0]
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in block.splitlines())}


def _revision() -> str:
    commit = _output("git", "-C", str(building.ROOT), "rev-parse", "--short=12", "HEAD").strip()
    changed = _output("git", "-C", str(building.ROOT), "status", "--porcelain", "--", ".", ":!benchmarks/results")
    return f"{commit or 'unknown'}{' + changes' if changed.strip() else ''}"


def _output(*command: str) -> str:
    """Standard output, or nothing when that fails: git may be missing, and so may the repository."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stdout
    except OSError:
        return ""
