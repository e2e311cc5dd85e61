"""What the deliveries let go without asking the handler of files: what it would have let go."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrord_syscalls.structs import OpenHow
from mirrord_trace.config.model import FilesConfiguration
from mirrord_trace.config.patterns import path_pattern
from mirrord_trace.policy.default_paths import Surroundings
from mirrord_trace.policy.files import FilesPolicy
from mirrord_trace.policy.names import PRESENTED
from mirrord_trace.supervisor.delivery.base import PASS
from mirrord_trace.supervisor.delivery.concerns import ExaminedPaths, LocalPaths
from mirrord_trace.supervisor.handlers.files import FileHandlers
from mirrord_trace.supervisor.handlers.path_calls import EXECUTING, PATHS
from mirrord_trace.tree import containment
from mirrord_trace.tree.base import Tree
from tests.mirrord_trace.support import Page, call_of

TREE = b"/tmp/workspace/tree"
SURROUNDINGS = Surroundings(
    working_directory=b"/home/dev/project", home=b"/home/dev", executable=b"/usr/bin/python3", temporary=b"/tmp"
)
CALLS = [name for name, paths in PATHS.items() if len(paths) == 1 and name not in EXECUTING]
OPENS = ("open", "openat", "openat2")


def handlers_of(**said: Any) -> tuple[FileHandlers, LocalPaths]:
    policy = FilesPolicy.of(FilesConfiguration(**said), SURROUNDINGS, (b"/usr/share/mounted",))
    tree = SimpleNamespace(root=TREE, may_write=False, pod_path=lambda path: containment.pod_path(TREE, path))
    handlers = FileHandlers(policy, dict.fromkeys(PRESENTED, b"/stand-in"), cast(Tree, tree))
    concerns = {interest.concerns for interest in handlers.interests(dict.fromkeys(CALLS, 0))} - {None}
    (known,) = {found.local if isinstance(found, ExaminedPaths) else found for found in concerns}
    assert isinstance(known, LocalPaths)
    return handlers, known


def is_let_go(handlers: FileHandlers, name: str, path: bytes, flags: int) -> bool:
    memory = Page()
    (place,) = PATHS[name]
    arguments = [0] * 6
    arguments[place.index] = memory.put(path + b"\0")
    if name == "openat2":
        arguments[2:4] = memory.put(OpenHow(flags, 0, 0).encode()), OpenHow.SIZE
    elif name in OPENS:
        arguments[place.index + 1] = flags
    if place.directory is not None:
        arguments[place.directory] = -100 & 0xFFFF_FFFF
    return handlers.handle(call_of(name, *arguments, memory=memory)) is PASS


COMPONENTS = st.sampled_from(
    [
        *("usr", "etc", "proc", "tmp", "home", "dev", "self", "1", "fd", "cwd", "exe", "workspace", "tree", "share"),
        *(
            "mounted",
            "hosts",
            "nsswitch.conf",
            "sys",
            "kernel",
            "hostname",
            ".kube",
            "project",
            "x.json",
            "",
            ".",
            "..",
        ),
    ]
)
PATHS_OF_ALL_SORTS = st.lists(COMPONENTS, min_size=1, max_size=6).map(lambda names: "/".join(["", *names]).encode())
SAID = st.sampled_from(
    [
        {},
        {"mode": "write"},
        {"mode": "localwithoverrides"},
        {"read_only": (path_pattern(r"\.json$"),)},
        {"mapping": ((path_pattern("^/usr/share"), "/srv"),), "not_found": (path_pattern("hosts"),)},
    ]
)


@given(said=SAID, paths=st.lists(PATHS_OF_ALL_SORTS, min_size=1, max_size=10))
def test_no_call_on_a_path_in_a_local_tree_is_anything_but_let_go(said: dict[str, Any], paths: list[bytes]) -> None:
    handlers, known = handlers_of(**said)
    for path in paths:
        if not known.match(path):
            for name in CALLS:
                for flags in (os.O_RDONLY, os.O_RDWR | os.O_CREAT) if name in OPENS else (0,):
                    assert is_let_go(handlers, name, path, flags)


@pytest.mark.parametrize(
    "path", [b"/usr/share/x", b"/usr//./x/", b"/tmp", b"/tmp/workspace", b"/etc/passwd", b"/dev/fd/0"]
)
def test_paths_in_local_trees_are_known_before_they_are_met(path: bytes) -> None:
    _, known = handlers_of()
    assert not known.match(path)


@pytest.mark.parametrize(
    "path",
    [
        *(TREE, TREE + b"/usr/x", b"/tmp//workspace/./tree/x", b"/etc/hosts", b"/etc/./nsswitch.conf", b"/srv/x"),
        *(b"/proc/self/cwd", b"/proc/1/fd/3", b"/proc/sys/kernel/hostname", b"/usr/share/mounted/x", b"/usr/../srv/x"),
    ],
)
def test_others_are_not(path: bytes) -> None:
    _, known = handlers_of()
    assert known.match(path)


@pytest.fixture
def in_usr() -> Iterator[None]:
    before = os.getcwd()
    os.chdir("/usr")
    yield
    os.chdir(before)


@pytest.mark.usefixtures("in_usr")
@pytest.mark.parametrize("path", [b"share/x", b"./share/x", b"x"])
def test_relative_paths_are_known_with_their_directories(path: bytes) -> None:
    handlers, known = handlers_of()
    assert not known.match(path, b"/usr")
    assert known.match(path, b"/srv")
    assert known.match(path, TREE)
    assert known.match(b"", b"/usr")
    assert is_let_go(handlers, "stat", path, 0)


def test_an_installation_is_known_once_it_was_met_after_its_program_was_executed() -> None:
    handlers, known = handlers_of()
    handlers.policy.add_program(b"/srv/app/bin/run")
    assert known.match(b"/srv/app/share/x")
    assert is_let_go(handlers, "stat", b"/srv/app/share/y", 0)
    assert not known.match(b"/srv/app/share/x")


def test_trees_are_told_only_when_there_are_others() -> None:
    handlers, known = handlers_of()
    told: list[object] = []
    known.copy_to(cast(Any, SimpleNamespace(use_trees=told.append, add=lambda key: None)))
    handlers.policy.add_program(b"/usr/bin/env")
    for path in (b"/srv/x.py", b"/srv/y.py"):
        assert is_let_go(handlers, "stat", path, 0)
        assert not known.match(path)
    assert len(told) == 1
    handlers.policy.add_program(b"/srv/app/bin/run")
    for path in (b"/srv/z.py", b"/srv/app/x"):
        assert is_let_go(handlers, "stat", path, 0)
    assert len(told) == 2
