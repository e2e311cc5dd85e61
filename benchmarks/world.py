"""Where the measuring takes place: a network namespace of our own, and in it a pod with a service to talk to.

Nothing that is measured can reach anything but loopback: this process moves into a fresh network namespace before it
starts anything. Who is not root does so within a user namespace. The pod is one as the tests make it.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs

from benchmarks import building
from benchmarks.errors import Unavailable
from mirrord_trace.targets.netlink import loopback_with
from mirrord_trace.targets.pod_init import configure_network
from mirrord_trace.targets.sandbox import SandboxPod

ADDRESS: Final = "198.18.1.1"
PORT: Final = 7000
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000


def leave_the_network() -> None:
    """Move this process into a network namespace with nothing but `lo`. Raises Unavailable."""
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.geteuid(), os.getegid()
    kinds = _CLONE_NEWNET if user == 0 else _CLONE_NEWNET | _CLONE_NEWUSER
    if libc.unshare(kinds) != 0:
        raise Unavailable(
            f"cannot make a network namespace: {os.strerror(ctypes.get_errno())}. Run this as root, or where ordinary "
            "users may make user namespaces."
        )
    if kinds & _CLONE_NEWUSER:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    configure_network([request.decode("latin-1") for request in loopback_with([], [])])


@attrs.frozen
class World:
    """The pod, and files that programs work on."""

    pod: SandboxPod

    def in_pod(self, program: Sequence[str | Path]) -> list[str]:
        """The command line that runs a program natively inside the pod's network."""
        return ["nsenter", f"--net=/proc/{self.pod.pid}/ns/net", "--", *map(str, program)]


@contextmanager
def open_world(files: Mapping[str, bytes] | None = None) -> Iterator[World]:
    """Make the pod with its service. `files`: contents by path that exist in the pod only."""
    service = [str(building.program("far_side")), str(PORT)]
    with SandboxPod(hostname="bench-0", addresses=[f"{ADDRESS}/32"], files=files, programs=[service]) as pod:
        yield World(pod)


def inputs(count: int) -> Path:
    """A directory with so many small files, input-0, input-1, …; made once."""
    directory = building.OUTPUT / f"inputs-{count}"
    if not directory.exists():
        unfinished = directory.with_suffix(".unfinished")
        unfinished.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (unfinished / f"input-{number}").write_bytes(b"an input\n" * 100)
        unfinished.rename(directory)
    return directory
