"""FUSE where it works, copies where it does not and nothing is to be written; and words for the rest."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

import mirrord_trace.tree.fuse.mount  # now: not everybody who runs tests may read it later
from mirrord_trace.errors import Failure, UsageFailure
from mirrord_trace.tree import fuse_here
from mirrord_trace.tree.base import Need
from mirrord_trace.tree.choice import Kind, check, open_tree
from mirrord_trace.tree.fuse_here import Lack
from mirrord_trace.tree.unmounting import MOUNTPOINT, is_mountpoint, remove
from tests.mirrord_trace.tree.private_mounts import (
    IS_ROOT,
    USER,
    become_user,
    in_private_mounts,
    shut_fuse_device,
    where_users_may_mount,
)
from tests.mirrord_trace.tree.scratch_pod import ScratchPod, Told

NO_LIBRARY = Lack("pyfuse3 is not installed", "install it")
NO_DEVICE = Lack("/dev/fuse is missing", "make it")


@pytest.fixture
def pod(tmp_path: Path) -> ScratchPod:
    (tmp_path / "pod").mkdir()
    (tmp_path / "pod/file").write_text("of the pod")
    (tmp_path / "workspace").mkdir()
    for directory in (tmp_path, tmp_path / "workspace", *tmp_path.parents[:2]):
        directory.chmod(0o777)
    return ScratchPod(tmp_path / "pod")


def become_owner(pod: ScratchPod) -> None:
    """Whoever runs this becomes an ordinary user to whom the workspace belongs."""
    if IS_ROOT:
        os.chown(pod.top.parent / "workspace", USER, USER)
    become_user()


def used(pod: ScratchPod, wanted: Kind, *, may_write: bool = False) -> tuple[str, Told]:
    """The kind of tree that one gets, after a file was read through it."""
    workspace, told = pod.top.parent / "workspace", Told()

    async def main() -> str:
        with trio.fail_after(20):
            async with open_tree(
                wanted, pod.files, workspace, writable=lambda path: may_write, may_write=may_write, tell=told
            ) as tree:
                assert tree.may_write == may_write
                path = await tree.ensure(b"/file", Need.CONTENT)
                content = await trio.to_thread.run_sync(Path(os.fsdecode(path)).read_text)
                assert content == "of the pod"
                return type(tree).__name__

    try:
        return trio.run(main), told
    finally:
        assert not is_mountpoint(workspace / MOUNTPOINT)
        assert remove(workspace)


def lacking(monkeypatch: pytest.MonkeyPatch, *lacks: Lack) -> None:
    monkeypatch.setattr(fuse_here, "missing", lambda: lacks)


@pytest.mark.parametrize("wanted", ["auto", "fuse"])
@where_users_may_mount
def test_fuse_where_it_works(pod: ScratchPod, wanted: Kind) -> None:
    kind, told = used(pod, wanted)
    assert kind == "FuseTree"
    assert (told.notes, told.warnings) == ([], [])
    assert told.explanations == ["the target's files: mounted with FUSE"]


@where_users_may_mount
def test_fuse_of_an_ordinary_user(pod: ScratchPod) -> None:
    become_owner(pod)
    assert used(pod, "fuse")[0] == "FuseTree"


def test_copies_if_wanted(pod: ScratchPod) -> None:
    kind, told = used(pod, "copy")
    assert (kind, told.notes) == ("CopyTree", [])


def test_copies_where_fuse_does_not_work(pod: ScratchPod, monkeypatch: pytest.MonkeyPatch) -> None:
    lacking(monkeypatch, NO_LIBRARY, NO_DEVICE)
    kind, told = used(pod, "auto")
    assert kind == "CopyTree"
    assert told.notes == [
        "no FUSE here (pyfuse3 is not installed; /dev/fuse is missing): "
        "the target's files are copied when they are needed"
    ]
    assert told.explanations[0] == "pyfuse3 is not installed: install it\n/dev/fuse is missing: make it"


@in_private_mounts
def test_copies_where_mounting_fails_although_nothing_is_missing(
    pod: ScratchPod, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking(monkeypatch)
    shut_fuse_device()
    become_owner(pod)
    kind, told = used(pod, "auto")
    assert kind == "CopyTree"
    assert told.notes[0].startswith("no FUSE here (cannot mount the target's files at ")


@where_users_may_mount
def test_copies_where_the_kernel_does_not_ask_for_what_was_mounted(
    pod: ScratchPod, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking(monkeypatch)
    monkeypatch.setattr(mirrord_trace.tree.fuse.mount, "_READY_WITHIN_S", 0)
    kind, told = used(pod, "auto")
    assert kind == "CopyTree"
    assert told.notes[0].startswith("no FUSE here (the kernel does not ask for the target's files after ")


def test_copies_where_the_library_cannot_be_loaded(pod: ScratchPod, monkeypatch: pytest.MonkeyPatch) -> None:
    lacking(monkeypatch)
    monkeypatch.setitem(sys.modules, "pyfuse3", None)
    monkeypatch.delitem(sys.modules, "mirrord_trace.tree.fuse.mount")
    kind, told = used(pod, "auto")
    assert kind == "CopyTree"
    assert told.notes[0].startswith("no FUSE here (pyfuse3 cannot be loaded: ")


def test_fuse_that_is_asked_for_and_missing(pod: ScratchPod, monkeypatch: pytest.MonkeyPatch) -> None:
    lacking(monkeypatch, NO_LIBRARY)
    with pytest.raises(Failure) as raised:
        used(pod, "fuse")
    assert raised.value.message == "the target's files cannot be mounted with FUSE: pyfuse3 is not installed"
    assert raised.value.advice == "install it\nOr have them copied: --fs-tree copy"
    assert raised.value.exit_code == 1


def test_writing_needs_fuse(pod: ScratchPod, monkeypatch: pytest.MonkeyPatch) -> None:
    lacking(monkeypatch, NO_DEVICE)
    with pytest.raises(Failure) as raised:
        used(pod, "auto", may_write=True)
    assert raised.value.message == "writing to the target's files needs FUSE: /dev/fuse is missing"
    assert raised.value.advice == "make it\nOr only read them: --fs-mode read"


def test_what_can_be_known_before_there_is_a_target(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking(monkeypatch, NO_DEVICE)
    wanted: Kind
    assert check("copy", may_write=False) == ()
    assert check("auto", may_write=False) == (NO_DEVICE,)
    for wanted, may_write in (("fuse", False), ("auto", True), ("copy", True)):
        with pytest.raises(Failure):
            check(wanted, may_write=may_write)
    lacking(monkeypatch)
    for wanted, may_write in (("fuse", False), ("auto", True), ("auto", False)):
        assert check(wanted, may_write=may_write) == ()


def test_writing_to_copies_cannot_be_meant(pod: ScratchPod) -> None:
    with pytest.raises(UsageFailure) as raised:
        used(pod, "copy", may_write=True)
    assert raised.value.exit_code == 2


def test_no_room_for_copies(pod: ScratchPod, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **named: Any) -> None:
        raise OSError(28, "No space left on device", "/tmp/x")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(Failure) as raised:
        used(pod, "copy")
    assert raised.value.message == "cannot make /tmp/x: No space left on device"


@pytest.mark.parametrize("wanted", ["fuse", "copy"])
@where_users_may_mount
def test_what_fails_in_the_block_comes_out_as_it_is(pod: ScratchPod, wanted: Kind) -> None:
    async def main() -> None:
        async with open_tree(
            wanted,
            pod.files,
            pod.top.parent / "workspace",
            writable=lambda path: False,
            may_write=False,
            tell=Told(),
        ):
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        trio.run(main)
