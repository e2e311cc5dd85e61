"""What is missing for FUSE is said, and how to get it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest

from mirrord_trace.tree import fuse_here
from mirrord_trace.tree.fuse_here import Facts, facts, lacks_of
from tests.mirrord_trace.tree.private_mounts import (
    IS_ROOT,
    become_user,
    let_everybody_reach,
    mount_fuse_as_user,
    where_users_may_mount,
)

ROOT = Facts(
    has_library=True,
    device_errno=0,
    device_mode=0o666,
    is_root=True,
    may_mount=True,
    may_anybody_mount=True,
    fusermount=None,
    is_fusermount_privileged=False,
    has_mtab=False,
    user=0,
    has_name=False,
)
USER = attrs.evolve(
    ROOT,
    is_root=False,
    may_mount=False,
    fusermount="/bin/fusermount3",
    is_fusermount_privileged=True,
    has_mtab=True,
    user=12345,
    has_name=True,
)
NAMELESS = 12345


@pytest.mark.parametrize("facts", [ROOT, USER], ids=["root", "user"])
def test_nothing_is_missing(facts: Facts) -> None:
    assert lacks_of(facts) == ()


@pytest.mark.parametrize(
    ("who", "but", "what", "how"),
    [
        (ROOT, {"has_library": False}, "pyfuse3 is not installed", "pip install 'mirrord-trace[fuse]'"),
        (ROOT, {"device_errno": errno.ENOENT}, "/dev/fuse is missing", "modprobe fuse"),
        (ROOT, {"device_errno": errno.ENODEV}, "/dev/fuse is missing", "--device /dev/fuse"),
        (ROOT, {"device_errno": errno.EPERM}, "this container may not open /dev/fuse", "--device /dev/fuse"),
        (ROOT, {"device_errno": errno.EBUSY}, "/dev/fuse cannot be opened: Device or resource busy", "ls -l /dev/fuse"),
        (ROOT, {"may_mount": False}, "root has no CAP_SYS_ADMIN here", "--cap-add SYS_ADMIN"),
        (ROOT, {"may_mount": False, "may_anybody_mount": False}, "nobody may mount anything", "--cap-add SYS_ADMIN"),
        (
            USER,
            {"device_errno": errno.EACCES, "device_mode": 0o600},
            "you may not open /dev/fuse (its mode is 0600)",
            "sudo chmod 666 /dev/fuse",
        ),
        (USER, {"may_anybody_mount": False}, "nobody may mount anything here (no_new_privs is set", "outside"),
        (USER, {"fusermount": None}, "fusermount3 is missing", "sudo apt-get install fuse3"),
        (
            USER,
            {"is_fusermount_privileged": False},
            "/bin/fusermount3 is not set-user-ID root",
            "sudo chmod u+s /bin/fusermount3",
        ),
        (USER, {"has_mtab": False}, "/etc/mtab is missing", "ln -s /proc/self/mounts /etc/mtab"),
        (USER, {"has_name": False}, "user 12345 has no name here", "sudo useradd --no-create-home --uid 12345 "),
    ],
)
def test_one_thing_is_missing(who: Facts, but: dict[str, Any], what: str, how: str) -> None:
    (lack,) = lacks_of(attrs.evolve(who, **but))
    assert lack.what.startswith(what)
    assert how in lack.how


def test_several_things_are_missing() -> None:
    lacks = lacks_of(attrs.evolve(USER, has_library=False, device_errno=errno.ENOENT, fusermount=None))
    assert [lack.what.split()[0] for lack in lacks] == ["pyfuse3", "/dev/fuse", "fusermount3"]


def test_facts_of_this_machine() -> None:
    found = facts()
    assert found.has_library, "pip install -e '.[dev]' (make venv)"
    assert found.is_root == (os.geteuid() == 0)
    assert (found.device_errno == 0) == os.access("/dev/fuse", os.R_OK | os.W_OK)


@where_users_may_mount
def test_facts_of_an_ordinary_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if IS_ROOT:
        let_everybody_reach(Path(place) for place in sys.path if place)
        become_user()
    found = facts()
    assert (found.may_mount, found.is_root, found.device_errno, found.device_mode) == (False, False, 0, 0o666)
    assert found.fusermount is not None
    assert lacks_of(found) == ()
    program = tmp_path / "fusermount3"
    monkeypatch.setattr(fuse_here, "fusermount", lambda: str(program))
    assert not facts().is_fusermount_privileged


@pytest.mark.skipif(not IS_ROOT, reason="only root can become somebody without a name")
@where_users_may_mount
def test_a_user_without_a_name_cannot_mount(tmp_path: Path) -> None:
    os.chown(tmp_path, NAMELESS, NAMELESS)
    tmp_path.chmod(0o755)
    let_everybody_reach([*(Path(place) for place in sys.path if place), tmp_path])
    become_user(NAMELESS)
    with pytest.raises(subprocess.CalledProcessError):
        mount_fuse_as_user(tmp_path)
    (lack,) = fuse_here.missing()
    assert lack.what.startswith(f"user {NAMELESS} has no name here")
