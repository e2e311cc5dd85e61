"""Calls on files as tables: whose a path is, and what becomes of the call. The tree notes what was asked of it."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import attrs
import pytest
import trio

from mirrord_agent.wire.file_records import FilesystemStatus
from mirrord_syscalls.structs import OpenHow, Statfs
from mirrord_trace.config.model import FilesConfiguration
from mirrord_trace.policy.default_paths import Surroundings
from mirrord_trace.policy.files import FilesPolicy
from mirrord_trace.policy.paths import normalised
from mirrord_trace.remote_files import RemoteFiles
from mirrord_trace.supervisor.delivery.base import (
    AT_FDCWD,
    PASS,
    Fail,
    Handlers,
    Return,
    UsePath,
    UsePaths,
    Verdict,
)
from mirrord_trace.supervisor.delivery.concerns import LocalPaths
from mirrord_trace.supervisor.handlers import programs
from mirrord_trace.supervisor.handlers.answer import Answer
from mirrord_trace.supervisor.handlers.files import FileHandlers
from mirrord_trace.supervisor.handlers.path_calls import PATHS
from mirrord_trace.tree.base import Asked, Need
from mirrord_trace.tree.creations import Creations
from tests.mirrord_trace.support import Page, call_of

_AT_SYMLINK_NOFOLLOW = 0x100
_AT_SYMLINK_FOLLOW = 0x400
_AT_EMPTY_PATH = 0x1000


def _nothing() -> None:
    """Nobody is told."""


@attrs.define(eq=False)
class ScriptedTree:
    """A tree at `root`; `links` are the pod's, `refusals` what ensure() raises by path."""

    root: bytes
    may_write: bool = False
    answers_always: bool = True
    ready: bool = True
    links: dict[bytes, bytes] = attrs.field(factory=dict)
    refusals: dict[bytes, int] = attrs.field(factory=dict)
    may_begin: bool = False
    begun: list[tuple[bytes, Need]] = attrs.field(factory=list)
    ensured: list[tuple[bytes, Need]] = attrs.field(factory=list)
    creations: Creations = attrs.field(factory=Creations)
    named: list[tuple[int, bytes]] = attrs.field(factory=list)
    on_mapped: Callable[[], None] = _nothing

    def is_ready(self, path: bytes, need: Need) -> bool:
        return self.ready

    def ask(self, path: bytes, need: Need) -> None:
        return None

    def begin(self, path: bytes, need: Need) -> bool:
        self.begun.append((path, need))
        return self.may_begin

    async def ensure(self, path: bytes, need: Need, asked: Asked | None = None) -> bytes:
        self.ensured.append((path, need))
        if path in self.refusals:
            raise OSError(self.refusals[path], "scripted")
        return self.root + normalised(path)

    async def read_link(self, path: bytes) -> bytes:
        if path not in self.links:
            raise OSError(errno.EINVAL, "not a link")
        return self.links[path]

    async def give_name(self, number: int, path: bytes) -> None:
        self.named.append((number, path))

    def pod_path(self, path: bytes) -> bytes | None:
        if path == self.root:
            return b"/"
        return path[len(self.root) :] if path.startswith(self.root + b"/") else None

    def abandon(self) -> None:
        """Nothing waits."""


@attrs.frozen
class _Seen:
    path: bytes
    status: object | None
    errno: int = 0
    target: bytes | None = None


@attrs.frozen
class _Status:
    mode: int


@attrs.frozen
class _Looked:
    result: _Seen


@attrs.define
class _Handle:
    content: bytes

    async def read(self, offset: int, length: int) -> bytes:
        return self.content[offset : offset + length]

    def close(self) -> None:
        """Nothing was opened."""


FILE_SYSTEM = FilesystemStatus(0x1021994, 4096, 100, 50, 49, 10, 5, 255, 4096, 0x20, 7)


@attrs.define
class ScriptedFiles:
    """The pod's files, by their paths."""

    contents: dict[bytes, bytes] = attrs.field(factory=dict)

    async def look(self, path: bytes, *, follow: bool, content_limit: int = 0) -> _Looked:
        if path in self.contents:
            kind = stat.S_IFDIR if path.endswith(b"/") else stat.S_IFREG
            return _Looked(_Seen(path, _Status(kind | 0o755)))
        return _Looked(_Seen(path, None, errno.ENOENT))

    async def filesystem(self, path: bytes) -> FilesystemStatus:
        assert path == b"/srv/data"
        return FILE_SYSTEM

    async def open(self, path: bytes, flags: int, mode: int = 0) -> _Handle:
        return _Handle(self.contents[path])


@attrs.define
class World:
    handlers: FileHandlers
    tree: ScriptedTree
    files: ScriptedFiles

    def answer(
        self,
        name: str,
        *paths: bytes,
        directory: int = AT_FDCWD,
        flags: int = 0,
        resolve: int = 0,
        mode: int = 0,
        others: Mapping[int, int] = MappingProxyType({}),
    ) -> Answer:
        """A call with these paths; `flags` are where the call has them, and `mode` where openat2 has it."""
        memory = Page()
        arguments = [0] * 6
        for argument, path in zip(PATHS[name], paths, strict=True):
            arguments[argument.index] = memory.put(path + b"\0")
            if argument.directory is not None:
                arguments[argument.directory] = directory
        if name == "openat2":
            arguments[2] = memory.put(OpenHow(flags, mode, resolve).encode())
            arguments[3] = OpenHow.SIZE
        elif name in FLAGS:
            arguments[FLAGS[name]] = flags
        if name in ("readlink", "readlinkat"):
            index = PATHS[name][0].index + 1
            arguments[index] = memory.put(bytes(256))
            arguments[index + 1] = flags or 256
        for index, value in others.items():
            arguments[index] = value
        return self.handlers.handle(call_of(name, *arguments, memory=memory))

    def verdict(self, name: str, *paths: bytes, **arguments: Any) -> Verdict:
        """What becomes of a call, see `answer`."""
        answer = self.answer(name, *paths, **arguments)
        return finished(answer) if isinstance(answer, Coroutine) else answer


FLAGS = {"open": 1, "openat": 2, "newfstatat": 3, "statx": 2, "faccessat2": 3, "linkat": 4}


def finished(answer: Coroutine[Any, Any, Verdict]) -> Verdict:
    async def main() -> Verdict:
        return await answer

    return trio.run(main)


@pytest.fixture
def tree_root(tmp_path: Path) -> bytes:
    root = tmp_path / "tree"
    (root / "srv/data").mkdir(parents=True)
    return os.fsencode(root)


@pytest.fixture
def world(tree_root: bytes) -> Callable[..., World]:
    def make(*, presented: dict[bytes, bytes] | None = None, ready: bool = True, **configuration: Any) -> World:
        chosen = FilesConfiguration(**configuration)
        surroundings = Surroundings(
            working_directory=b"/home/dev/project",
            home=b"/home/dev",
            executable=b"/usr/bin/python3",
            temporary=b"/tmp",
            search_path=(b"/usr/bin",),
        )
        policy = FilesPolicy.of(chosen, surroundings, ())
        tree = ScriptedTree(tree_root, may_write=policy.may_write_remotely, ready=ready)
        files = ScriptedFiles()
        return World(FileHandlers(policy, presented or {}, tree, cast(RemoteFiles, files)), tree, files)

    return make


@pytest.fixture
def at_tree(tree_root: bytes) -> Iterator[int]:
    """This thread works in the tree's /srv, of which the fixture is a descriptor."""
    before = os.getcwd()
    os.chdir(os.fsdecode(tree_root + b"/srv"))
    descriptor = os.open(".", os.O_RDONLY)
    yield descriptor
    os.close(descriptor)
    os.chdir(before)


def known_to_kernel(world: World, path: str) -> None:
    """So that it finds the way by heart."""
    os.close(os.open(os.path.join(os.fsdecode(world.tree.root), path), os.O_CREAT | os.O_WRONLY))


READING = (
    *("stat", "lstat", "newfstatat", "statx", "access", "faccessat", "faccessat2", "chdir"),
    *("getxattr", "lgetxattr", "listxattr", "open", "openat", "openat2", "inotify_add_watch"),
)


@pytest.mark.parametrize("name", READING)
def test_what_is_read_is_the_targets(world: Callable[..., World], name: str) -> None:
    there = world()
    known_to_kernel(there, "srv/data/x")
    examines = name in ("stat", "lstat", "newfstatat", "statx")
    assert there.verdict(name, b"/srv/data/x") == UsePath(
        there.tree.root + b"/srv/data/x", may_wait=not examines, is_guarded=True
    )
    there.tree.ready = False
    assert there.verdict(name, b"/srv/data/x") == UsePath(
        there.tree.root + b"/srv/data/x", may_wait=True, is_guarded=True
    )
    assert there.verdict(name, b"/usr/share/x") is PASS
    assert there.verdict(name, b"/proc/self/status") is PASS


@pytest.mark.parametrize(
    ("name", "flags", "need"),
    [
        ("stat", 0, Need.TARGET),
        ("lstat", 0, Need.ATTRIBUTES),
        ("newfstatat", 0, Need.TARGET),
        ("newfstatat", _AT_SYMLINK_NOFOLLOW, Need.ATTRIBUTES),
        ("statx", _AT_SYMLINK_NOFOLLOW, Need.ATTRIBUTES),
        ("open", os.O_RDONLY, Need.CONTENT),
        ("openat", os.O_DIRECTORY, Need.LISTING),
        ("openat2", os.O_PATH, Need.TARGET),
        ("openat2", os.O_PATH | os.O_NOFOLLOW, Need.ATTRIBUTES),
        ("chdir", 0, Need.LISTING),
    ],
)
def test_what_a_call_needs_is_brought_before_it(world: Callable[..., World], name: str, flags: int, need: Need) -> None:
    there = world(ready=False)
    there.verdict(name, b"/srv/data/x", flags=flags)
    assert there.tree.ensured == [(b"/srv/data/x", need)]


@pytest.mark.parametrize(
    ("name", "flags", "need"),
    [
        ("stat", 0, Need.TARGET),
        ("lstat", 0, Need.ATTRIBUTES),
        ("newfstatat", _AT_SYMLINK_NOFOLLOW, Need.ATTRIBUTES),
        ("statx", 0, Need.TARGET),
    ],
)
def test_who_only_examines_need_not_be_held(world: Callable[..., World], name: str, flags: int, need: Need) -> None:
    there = world(ready=False)
    there.tree.may_begin = True
    answer = there.answer(name, b"/srv/data/x", flags=flags)
    assert answer == UsePath(there.tree.root + b"/srv/data/x", may_wait=True, is_guarded=True)
    assert (there.tree.begun, there.tree.ensured) == ([(b"/srv/data/x", need)], [])


@pytest.mark.parametrize("name", ["open", "openat", "chdir", "access", "getxattr"])
def test_others_are_held(world: Callable[..., World], name: str) -> None:
    there = world(ready=False)
    there.tree.may_begin = True
    there.verdict(name, b"/srv/data/x")
    assert there.tree.begun == []
    assert len(there.tree.ensured) == 1


@pytest.mark.parametrize("name", ["open", "openat", "openat2"])
@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_CREAT | os.O_WRONLY, os.O_TRUNC, os.O_APPEND])
def test_files_are_written_here(world: Callable[..., World], name: str, flags: int) -> None:
    assert world().verdict(name, b"/srv/data/x", flags=flags) is PASS


@pytest.mark.parametrize("name", ["open", "openat", "openat2"])
@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_CREAT | os.O_WRONLY, os.O_TRUNC, os.O_APPEND])
def test_files_are_written_there_in_write_mode(world: Callable[..., World], name: str, flags: int) -> None:
    there = world(mode="write")
    expected = UsePath(there.tree.root + b"/srv/data/x", may_wait=True, is_guarded=True)
    assert there.verdict(name, b"/srv/data/x", flags=flags) == expected


@pytest.mark.parametrize(
    ("flags", "need"),
    [(os.O_WRONLY, Need.OUTPUT), (os.O_RDWR, Need.CHANGE), (os.O_WRONLY | os.O_CREAT, Need.OUTPUT)],
)
def test_what_only_writes_may_have_a_reader_there(world: Callable[..., World], flags: int, need: Need) -> None:
    there = world(mode="write", ready=False)
    there.verdict("open", b"/srv/fifo", flags=flags)
    assert there.tree.ensured == [(b"/srv/fifo", need)]


@pytest.mark.parametrize("name", ["unlink", "rmdir", "chmod", "truncate", "utimensat", "setxattr", "chown"])
def test_what_only_the_target_has_is_not_changed(world: Callable[..., World], name: str) -> None:
    there = world()
    there.files.contents[b"/srv/data/x"] = b""
    assert there.verdict(name, b"/srv/data/x") == Fail(errno.EROFS)
    assert there.verdict(name, b"/srv/data/nothing") == Fail(errno.ENOENT)


@pytest.mark.parametrize("name", ["mkdir", "mkdirat", "mknod", "symlink", "symlinkat"])
def test_what_is_made_is_made_here(world: Callable[..., World], name: str) -> None:
    assert world().verdict(name, b"/srv/data/new") is PASS


def test_what_was_written_here_is_read_here(world: Callable[..., World], tmp_path: Path) -> None:
    there = world(local=(), read_only=(re.compile(re.escape(str(tmp_path)) + "/out"),))
    out = os.fsencode(tmp_path / "out/state")
    remote = UsePath(there.tree.root + out, may_wait=True, is_guarded=True)
    assert there.verdict("open", out) == remote
    assert there.verdict("open", out, flags=os.O_CREAT | os.O_WRONLY) is PASS
    assert there.verdict("open", out) == remote  # nothing was written after all
    (tmp_path / "out").mkdir()
    (tmp_path / "out/state").write_text("mine")
    assert there.verdict("open", out) is PASS
    assert there.verdict("stat", out) is PASS
    assert there.verdict("unlink", out) is PASS
    assert there.verdict("stat", os.fsencode(tmp_path / "out/other")) != PASS


def test_not_found(world: Callable[..., World]) -> None:
    there = world()
    for name in ("open", "stat", "chdir", "unlink", "mkdir"):
        assert there.verdict(name, b"/home/dev/.kube/config") == Fail(errno.ENOENT)


def test_a_mapped_path_is_used_instead(world: Callable[..., World]) -> None:
    there = world(mapping=((re.compile("^/opt/app"), "/srv/app"), (re.compile("^/srv/secret"), "/tmp/secret")))
    assert there.verdict("open", b"/opt/app/x") == UsePath(
        there.tree.root + b"/srv/app/x", may_wait=True, is_guarded=True
    )
    assert there.verdict("open", b"/srv/secret/x") == UsePath(b"/tmp/secret/x", may_wait=True)


def test_names_files_are_read_where_their_stand_ins_lie(world: Callable[..., World], tmp_path: Path) -> None:
    there = world(presented={b"/etc/hosts": b"/stand-in"})
    for name in ("open", "openat", "openat2", "stat", "newfstatat", "access", "readlink", "statx"):
        assert there.verdict(name, b"/etc/hosts") == UsePath(b"/stand-in")
        assert there.verdict(name, b"/etc/resolv.conf") == Fail(errno.ENOENT)  # the target has none
        assert there.verdict(name, b"/etc/passwd") is PASS
        assert there.verdict(name, b"/home/hosts") is PASS
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_TRUNC):
        assert there.verdict("open", b"/etc/hosts", flags=flags) is PASS
    etc = os.open("/etc", os.O_RDONLY)
    try:
        assert there.verdict("openat", b"hosts", directory=etc) == UsePath(b"/stand-in")
        assert there.verdict("openat", b"../etc/hosts", directory=etc) == UsePath(b"/stand-in")
        assert there.verdict("openat", b"hosts", directory=9999) is PASS
        assert there.verdict("openat", b"/etc/hosts", directory=9999) == UsePath(b"/stand-in")
    finally:
        os.close(etc)


def test_names_files_without_any_other(world: Callable[..., World]) -> None:
    policy = world(mode="local").handlers.policy
    handlers = FileHandlers(policy, {b"/etc/hosts": b"/stand-in"})
    interests = {interest.rule.call: interest for interest in handlers.interests({"open": 2, "mkdir": 83, "stat": 4})}
    assert set(interests) == {"open", "stat"}
    memory = Page()
    assert handlers.handle(call_of("open", memory.put(b"/etc/hosts\0"), memory=memory)) == UsePath(b"/stand-in")
    assert handlers.handle(call_of("open", memory.put(b"/srv/hosts\0"), memory=memory)) is PASS


def test_inside_the_tree_the_kernel_needs_nobody(world: Callable[..., World], at_tree: int) -> None:
    there = world()
    for directory in (AT_FDCWD, at_tree):
        assert there.verdict("openat", b"data/x", directory=directory) is PASS
        assert there.verdict("newfstatat", b"data", directory=directory) is PASS
    there.tree.ready = False
    assert there.verdict("openat", b"data/x") is PASS
    assert there.tree.ensured == [(b"/srv/data/x", Need.CONTENT)]


def test_a_relative_path_out_of_the_tree_is_led_where_the_target_would(
    world: Callable[..., World], at_tree: int
) -> None:
    there = world()
    assert there.verdict("open", b"../../../usr/share/x") == UsePath(b"/usr/share/x", may_wait=True)
    assert there.verdict("open", b"data/../../opt/../srv/x") == UsePath(
        there.tree.root + b"/srv/x", may_wait=True, is_guarded=True
    )
    assert there.tree.ensured == [(b"/srv/data/../../opt/../srv/x", Need.CONTENT)]
    assert there.verdict("open", b"new", flags=os.O_CREAT | os.O_WRONLY) == UsePath(b"/srv/new", may_wait=True)


def test_a_local_path_that_leads_through_the_target_is_led_past_it(world: Callable[..., World]) -> None:
    there = world()
    assert there.verdict("open", b"/srv/data/../../usr/share/x") == UsePath(b"/usr/share/x", may_wait=True)
    assert there.verdict("open", b"/usr/lib/../share/x") is PASS


def test_a_slash_at_the_end_stays(world: Callable[..., World]) -> None:
    there = world()
    expected = UsePath(there.tree.root + b"/srv/data/x/", may_wait=True, is_guarded=True)
    assert there.verdict("open", b"/srv//data/./x/") == expected


def test_the_working_directory_has_the_targets_name(world: Callable[..., World], at_tree: int) -> None:
    there = world()
    memory = Page()
    room = memory.put(bytes(64))
    assert there.handlers.working_directory(call_of("getcwd", room, 64, memory=memory)) == Return(
        5, ((room, b"/srv\0"),)
    )
    assert there.handlers.working_directory(call_of("getcwd", room, 4, memory=memory)) == Fail(errno.ERANGE)
    os.chdir("/")
    assert there.handlers.working_directory(call_of("getcwd", room, 64, memory=memory)) is PASS


def test_links_have_the_targets_targets(world: Callable[..., World], at_tree: int) -> None:
    there = world()
    there.tree.links[b"/srv/link"] = b"/srv/data/x"

    def told(verdict: Verdict) -> bytes:
        assert isinstance(verdict, Return)
        ((_, written),) = verdict.writes
        assert verdict.value == len(written)
        return written

    assert told(there.verdict("readlink", b"/srv/link")) == b"/srv/data/x"
    assert told(there.verdict("readlink", b"/srv/link", flags=4)) == b"/srv"
    assert told(there.verdict("readlinkat", b"link")) == b"/srv/data/x"
    assert there.verdict("readlink", b"/srv/data") == Fail(errno.EINVAL)
    assert told(there.verdict("readlink", b"/proc/self/cwd")) == b"/srv"
    assert told(there.verdict("readlink", b"/proc/self/fd/%d" % at_tree)) == b"/srv"
    assert told(there.verdict("readlink", b"/proc/%d/cwd" % os.getpid())) == b"/srv"
    assert there.verdict("readlink", b"/proc/self/root") is PASS
    assert there.verdict("readlink", b"/proc/self/exe") is PASS


def test_the_file_system_is_the_targets(world: Callable[..., World]) -> None:
    there = world()
    there.files.contents[b"/srv/data"] = b""
    verdict = there.verdict("statfs", b"/srv/data")
    assert there.verdict("statfs", b"/srv/dangling") == Fail(errno.ENOENT)
    assert isinstance(verdict, Return)
    ((_, written),) = verdict.writes
    told = Statfs.decode(written)
    assert (told.type, told.bsize, told.bavail, told.ffree, told.fsid) == (0x1021994, 4096, 49, 5, 7)
    assert (told.namelen, told.frsize, told.flags, len(written)) == (255, 4096, 0x20, 120)


def test_what_is_open_is_there_when_it_is_opened_again(world: Callable[..., World], at_tree: int) -> None:
    there = world(ready=False)
    assert there.verdict("open", b"/proc/self/fd/%d" % at_tree) is PASS
    assert there.tree.ensured == [(b"/srv", Need.CONTENT)]


def test_both_ends_of_a_rename_are_on_one_side(world: Callable[..., World]) -> None:
    there = world(mode="write")
    root = there.tree.root
    assert there.verdict("rename", b"/srv/a", b"/srv/b") == UsePaths(
        (root + b"/srv/a", root + b"/srv/b"), is_guarded=True
    )
    assert there.verdict("linkat", b"/srv/a", b"/tmp/b") == Fail(errno.EXDEV)
    assert there.verdict("renameat2", b"/tmp/a", b"/srv/b") == Fail(errno.EXDEV)
    assert there.verdict("rename", b"/tmp/a", b"/tmp/b") is PASS


def test_what_stands_behind_the_last_name_stays(world: Callable[..., World]) -> None:
    there = world(mode="write")
    root = there.tree.root
    assert there.verdict("rmdir", b"/srv/a/.") == UsePath(root + b"/srv/a/.", may_wait=True, is_guarded=True)
    there.tree.ready = False
    there.verdict("rename", b"/srv/a/.", b"/srv/b/")
    assert there.tree.ensured == [(b"/srv/a/.", Need.CHANGE), (b"/srv/b/", Need.CHANGE)]


def test_an_open_file_of_the_tree_gets_a_name(world: Callable[..., World], at_tree: int) -> None:
    there = world(mode="write")
    link = b"/proc/self/fd/%d" % at_tree
    number = os.fstat(at_tree).st_ino
    assert there.verdict("linkat", link, b"/srv/b", flags=_AT_SYMLINK_FOLLOW) == Return(0)
    assert there.verdict("linkat", b"", b"/srv/c", directory=at_tree, flags=_AT_EMPTY_PATH) == Return(0)
    assert there.tree.named == [(number, b"/srv/b"), (number, b"/srv/c")]
    assert there.verdict("linkat", link, b"/tmp/b", flags=_AT_SYMLINK_FOLLOW) == Fail(errno.EXDEV)
    assert there.verdict("linkat", link, b"/srv/b") == Fail(errno.EXDEV)
    only_read = world()
    only_read.files.contents[b"/srv"] = b""
    assert only_read.verdict("linkat", link, b"/srv/b", flags=_AT_SYMLINK_FOLLOW) == Fail(errno.EROFS)


@pytest.mark.parametrize("name", ["open", "openat", "openat2"])
def test_a_file_without_a_name_has_one_that_only_the_tree_knows(world: Callable[..., World], name: str) -> None:
    there = world(mode="write")
    for flag, may_get_a_name in ((0, True), (os.O_EXCL, False)):
        verdict = there.verdict(name, b"/srv/data/", flags=os.O_TMPFILE | os.O_RDWR | flag)
        assert isinstance(verdict, UsePath)
        assert verdict == UsePath(verdict.path, may_wait=True, is_guarded=True, is_name_of_new=True)
        directory, invented = os.path.split(verdict.path)
        assert directory == there.tree.root + b"/srv/data"
        assert there.tree.creations.take_unnamed(invented) is may_get_a_name
        assert there.tree.creations.take_unnamed(invented) is None
    there.tree.refusals[b"/srv/data"] = errno.EIO
    assert there.verdict(name, b"/srv/data", flags=os.O_TMPFILE | os.O_WRONLY) == Fail(errno.EIO)
    for flags in (os.O_TMPFILE, os.O_TMPFILE | os.O_RDWR | os.O_CREAT):  # the kernel's EINVAL
        refused = there.verdict(name, b"/srv/x", flags=flags)
        assert not isinstance(refused, UsePath) or not refused.is_name_of_new


@pytest.mark.parametrize(
    ("name", "flags", "arguments"),
    [
        ("mkdir", 0, {1: 0o751}),
        ("mkdirat", 0, {2: 0o751}),
        ("mknod", 0, {1: stat.S_IFIFO | 0o751}),
        ("mknodat", 0, {2: stat.S_IFREG | 0o751}),
        ("creat", 0, {1: 0o751}),
        ("open", os.O_CREAT | os.O_WRONLY, {2: 0o751}),
        ("openat", os.O_CREAT, {3: 0o751}),
        ("openat2", os.O_CREAT | os.O_RDWR, {}),
    ],
)
def test_the_tree_is_told_which_mode_is_asked_for(
    world: Callable[..., World], name: str, flags: int, arguments: dict[int, int]
) -> None:
    there = world(mode="write")
    there.verdict(name, b"/srv/new", flags=flags, mode=0o751, others=arguments)
    told = there.tree.creations.mode_of(os.getpid(), 0o700, 0o077)
    assert (told.mode & 0o7777, told.mask) == (0o751, 0o077)
    assert there.tree.creations.mode_of(os.getpid(), 0o700, 0o077).mode == 0o700


def test_in_read_mode_the_target_renames_nothing(world: Callable[..., World]) -> None:
    there = world()
    there.files.contents[b"/srv/a"] = b""
    assert there.verdict("rename", b"/srv/a", b"/srv/b") == Fail(errno.EROFS)
    assert there.verdict("rename", b"/srv/a", b"/tmp/b") == Fail(errno.EXDEV)
    assert there.verdict("rename", b"/srv/nothing", b"/srv/b") == Fail(errno.ENOENT)
    assert there.verdict("rename", b"/tmp/a", b"/tmp/b") is PASS


def test_programs_are_local_and_scripts_need_a_local_interpreter(world: Callable[..., World], tmp_path: Path) -> None:
    there = world(read_only=(re.compile(re.escape(str(tmp_path))),))
    there.files.contents |= {b"/srv/run": b"#!/bin/sh\n", b"/srv/server": b"\x7fELF"}
    assert there.verdict("execve", b"/usr/bin/env") is PASS
    assert there.verdict("execve", b"/srv/run") == UsePath(
        there.tree.root + b"/srv/run", may_wait=True, is_guarded=True
    )
    assert there.verdict("execve", b"/srv/server") == Fail(errno.EACCES)
    there.files.contents[b"/srv/folder/"] = b""
    assert there.verdict("execve", b"/srv/folder/") == Fail(errno.EACCES)
    there.files.contents[b"/srv/text"] = b"true\n"  # the kernel says ENOEXEC, and shells know what to do then
    assert there.verdict("execve", b"/srv/text") == UsePath(
        there.tree.root + b"/srv/text", may_wait=True, is_guarded=True
    )
    assert there.verdict("execve", b"/srv/nothing") == Fail(errno.ENOENT)
    local = tmp_path / "tool"
    local.write_text("")
    local.chmod(0o755)
    assert there.verdict("execve", os.fsencode(local)) is PASS
    assert there.verdict("open", os.fsencode(local)) is PASS  # a program reads itself


def noting(there: World, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What the policy is told of programs from now on."""
    noted: list[bytes] = []
    monkeypatch.setattr(FilesPolicy, "add_program", lambda self, path: noted.append(path))
    return noted


def test_a_program_is_noted_as_what_is_executed_whatever_mapping_says(
    world: Callable[..., World], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = world(read_only=(re.compile(re.escape(str(tmp_path))),), mapping=((re.compile("/from$"), "/to"),))
    noted = noting(there, monkeypatch)
    for name in ("from", "to"):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o755)
    assert there.verdict("execve", os.fsencode(tmp_path / "from")) is PASS
    assert noted == [os.fsencode(tmp_path / "from")]
    (tmp_path / "from").unlink()
    there.files.contents[os.fsencode(tmp_path / "to")] = b"#!/bin/sh\n"
    script = UsePath(there.tree.root + os.fsencode(tmp_path / "to"), may_wait=True, is_guarded=True)
    assert there.verdict("execve", os.fsencode(tmp_path / "from")) == script


def test_what_a_search_did_not_find_is_no_program(
    world: Callable[..., World], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "_AT_MOST", 2)
    there = world()
    noted = noting(there, monkeypatch)
    (tmp_path / "directory").mkdir()
    (tmp_path / "data").write_text("")
    for name in ("nothing", "directory", "data", "nothing/either"):
        assert there.verdict("execve", os.fsencode(tmp_path / name)) is PASS
    for name in ("first", "second", "third"):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o755)
        assert there.verdict("execve", os.fsencode(tmp_path / name)) is PASS
    assert noted == [os.fsencode(tmp_path / name) for name in ("first", "second")]


def test_a_program_beyond_the_tree_is_this_machines(world: Callable[..., World], at_tree: int) -> None:
    there = world()
    assert there.verdict("execve", b"../../usr/bin/env") == UsePath(b"/usr/bin/env", may_wait=True)
    there.files.contents[b"/srv/run"] = b"#!/bin/sh\n"
    assert there.verdict("execve", b"run") is PASS  # the tree's


def test_an_error_on_the_way_is_the_calls(world: Callable[..., World]) -> None:
    there = world(ready=False)
    there.tree.refusals[b"/srv/data/x"] = errno.EIO
    assert there.verdict("open", b"/srv/data/x") == Fail(errno.EIO)


def test_empty_paths_and_strange_directories_are_the_kernels(world: Callable[..., World]) -> None:
    there = world()
    read, write = os.pipe()
    try:
        assert there.verdict("newfstatat", b"", directory=read, flags=_AT_EMPTY_PATH) is PASS
        assert there.verdict("openat", b"x", directory=read) is PASS
    finally:
        os.close(read)
        os.close(write)


def test_paths_that_are_too_long_and_confined_ones_are_the_kernels(world: Callable[..., World], at_tree: int) -> None:
    there = world()
    assert there.verdict("open", b"/srv/" + b"x/" * 2045) != PASS  # with its NUL it has 4096 bytes
    assert there.verdict("open", b"/srv/" + b"x/" * 2050) is PASS
    assert there.verdict("openat2", b"/srv/data/x", flags=0, resolve=0x10) is PASS
    assert there.verdict("openat2", b"data/../x", directory=at_tree, flags=0, resolve=0x08) is PASS


def test_a_link_that_must_be_a_directory_is_none(world: Callable[..., World]) -> None:
    there = world()
    there.tree.links[b"/srv/link"] = b"data"
    there.files.contents[b"/srv/link/"] = b""
    assert there.verdict("readlink", b"/srv/link/") == Fail(errno.EINVAL)
    assert there.verdict("readlink", b"/srv/data/../nothing") == Fail(errno.ENOENT)


@pytest.mark.parametrize(("name", "flags_at"), [("newfstatat", 3), ("statx", 2)])
@pytest.mark.parametrize("mode", ["read", "local"])
def test_attributes_of_a_descriptor_are_nobodys_concern(
    world: Callable[..., World], mode: str, name: str, flags_at: int
) -> None:
    handlers = world(mode=mode).handlers
    if mode == "local":
        handlers = FileHandlers(handlers.policy, {})
    subscription = Handlers.of(*handlers.interests({name: 0})).subscription

    def is_seen(descriptor: int, flags: int) -> bool:
        arguments = [descriptor & 0xFFFF_FFFF, 0, 0, 0, 0, 0]
        arguments[flags_at] = flags
        return subscription.matches(name, arguments)

    assert not is_seen(3, _AT_EMPTY_PATH)
    assert is_seen(3, _AT_SYMLINK_NOFOLLOW)
    assert is_seen(AT_FDCWD, 0)
    assert is_seen(AT_FDCWD, _AT_EMPTY_PATH)


def test_only_what_is_local_for_every_use_is_kept(world: Callable[..., World]) -> None:
    there = world(presented={b"/etc/hosts": b"/stand-in"})
    (known,) = {
        id(interest.concerns): interest.concerns
        for interest in there.handlers.interests({"open": 2, "access": 21, "rename": 82})
        if interest.concerns is not None
    }.values()
    assert isinstance(known, LocalPaths)
    before = os.getcwd()
    os.chdir("/usr")
    try:
        for path in (b"/usr/share/x", b"relative"):
            there.verdict("open", path)
        assert not known.match(b"/usr/share/x")
        assert not known.match(b"relative", b"/usr")
        assert known.match(b"relative", b"/srv")
    finally:
        os.chdir(before)
    for path in (b"/srv/data/x", b"/etc/hosts", b"/etc/nsswitch.conf", b"/proc/self/cwd", b"/proc/1/fd/3"):
        there.verdict("open", path)
        there.verdict("open", path, flags=os.O_WRONLY)
        assert known.match(path)
