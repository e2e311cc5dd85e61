"""Stand-ins of the names files, from a session that is a dictionary of files."""

from __future__ import annotations

import errno
import os
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import attrs
import pytest
import trio

from mirrord_trace.errors import Failure
from mirrord_trace.policy.names import HOSTNAME, HOSTNAME_IN_PROC, NSSWITCH, TARGET_FILES
from mirrord_trace.session import RemoteFile, Session
from mirrord_trace.supervisor import names_files


@attrs.define
class Files:
    """The part of a session that is asked."""

    files: dict[bytes, RemoteFile | int]
    facts: SimpleNamespace = attrs.field(factory=lambda: SimpleNamespace(hostname="web-0"))

    async def read_file(self, path: bytes, limit_bytes: int = 1 << 20) -> RemoteFile:
        await trio.lowlevel.checkpoint()
        found = self.files.get(path, errno.ENOENT)
        if isinstance(found, int):
            raise OSError(found, os.strerror(found))
        return found


def bring(directory: Path, files: dict[bytes, RemoteFile | int]) -> dict[bytes, bytes]:
    return trio.run(names_files.bring, cast(Session, Files(files)), directory)


def test_resolver_stays_here_when_its_queries_do(tmp_path: Path) -> None:
    files = Files({b"/etc/resolv.conf": errno.EACCES})
    presented = trio.run(partial(names_files.bring, cast(Session, files), tmp_path, with_resolver=False))
    assert presented[b"/etc/resolv.conf"] == b"/etc/resolv.conf"


def test_host_name_stays_here_when_it_is_wanted(tmp_path: Path) -> None:
    files = Files({HOSTNAME: errno.EACCES})
    presented = trio.run(partial(names_files.bring, cast(Session, files), tmp_path, with_hostname=False))
    assert presented == {path: path for path in (HOSTNAME, HOSTNAME_IN_PROC)} | {NSSWITCH: presented[NSSWITCH]}


def test_stand_in_is_like_the_targets_file(tmp_path: Path) -> None:
    original = RemoteFile(data=b"nameserver 198.18.0.53\n", mode=0o640, mtime_ns=1_700_000_000_123_456_789)
    presented = bring(tmp_path, {b"/etc/resolv.conf": original})
    stand_in = Path(os.fsdecode(presented[b"/etc/resolv.conf"]))
    assert stand_in.is_relative_to(tmp_path)
    assert stand_in.read_bytes() == original.data
    assert stand_in.stat().st_mode & 0o7777 == 0o640
    assert stand_in.stat().st_mtime_ns == original.mtime_ns


def test_file_that_the_target_does_not_have_has_no_stand_in(tmp_path: Path) -> None:
    assert bring(tmp_path, {}).keys() == {NSSWITCH, HOSTNAME_IN_PROC}
    assert bring(tmp_path, dict.fromkeys(TARGET_FILES, errno.ENOTDIR)).keys() == {NSSWITCH, HOSTNAME_IN_PROC}


def test_hostname_and_nsswitch_are_made_here(tmp_path: Path) -> None:
    presented = bring(tmp_path, {})
    assert Path(os.fsdecode(presented[HOSTNAME_IN_PROC])).read_text() == "web-0\n"
    assert "hosts: files dns" in " ".join(Path(os.fsdecode(presented[NSSWITCH])).read_text().split())


def test_file_that_may_not_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ExceptionGroup) as group:
        bring(tmp_path, {b"/etc/hosts": errno.EACCES})
    (failure,) = group.value.exceptions
    assert isinstance(failure, Failure)
    assert "cannot read the target's /etc/hosts: Permission denied" in failure.message
