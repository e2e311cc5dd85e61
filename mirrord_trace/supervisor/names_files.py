"""Brings the target's names files here: what the process reads in place of /etc/resolv.conf and its relatives."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import trio

from mirrord_trace.errors import Failure
from mirrord_trace.policy.names import HOSTNAME, HOSTNAME_IN_PROC, NSSWITCH, RESOLV_CONF, TARGET_FILES, adapted_nsswitch
from mirrord_trace.session import RemoteFile, Session

_ABSENT = (errno.ENOENT, errno.ENOTDIR)


async def bring(
    session: Session, directory: Path, *, with_resolver: bool = True, with_hostname: bool = True
) -> dict[bytes, bytes]:
    """Where the stand-in of each presented path lies; a file that the target does not have is not in it.

    Without the resolver, for queries that leave from this machine, resolv.conf stands in for itself; without the host
    name, the files that tell it do. Raises Failure when the target does not let its files be read.
    """
    presented: dict[bytes, bytes] = {}
    if not with_resolver:
        presented[RESOLV_CONF] = RESOLV_CONF
    if not with_hostname:
        presented |= {path: path for path in (HOSTNAME, HOSTNAME_IN_PROC)}

    async def fetch(path: bytes) -> None:
        try:
            presented[path] = _write(directory, path, await session.read_file(path))
        except OSError as error:
            if error.errno not in _ABSENT:
                raise Failure(f"cannot read the target's {os.fsdecode(path)}: {error.strerror}") from error

    async with trio.open_nursery() as nursery:
        for path in TARGET_FILES:
            if path in presented:
                continue
            nursery.start_soon(fetch, path)
    presented[NSSWITCH] = _write(directory, NSSWITCH, _local(adapted_nsswitch(_local_nsswitch())))
    if with_hostname:
        presented[HOSTNAME_IN_PROC] = _write(directory, HOSTNAME_IN_PROC, _local(session.facts.hostname + "\n"))
    return presented


def _local(text: str) -> RemoteFile:
    data = text.encode(errors="surrogateescape")
    return RemoteFile(data=data, mode=0o644, mtime_ns=Path("/proc/self").stat().st_mtime_ns)


def _local_nsswitch() -> str:
    try:
        return Path(os.fsdecode(NSSWITCH)).read_text(errors="surrogateescape")
    except OSError:
        return ""


def _write(directory: Path, path: bytes, file: RemoteFile) -> bytes:
    stand_in = directory / os.fsdecode(os.path.basename(path) if path != HOSTNAME_IN_PROC else b"proc-hostname")
    stand_in.write_bytes(file.data)
    stand_in.chmod(file.mode & 0o777)
    os.utime(stand_in, ns=(file.mtime_ns, file.mtime_ns))
    return os.fsencode(stand_in)
