"""Which calls are let go when their paths are first met: those in trees that are local as a whole."""

from __future__ import annotations

import errno
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirrord_trace.policy.local_trees import LocalTrees
from mirrord_trace.supervisor.delivery.concerns import LocalPaths
from mirrord_trace.supervisor.delivery.notify.loop import receiver_in_python
from mirrord_trace.supervisor.delivery.path_tests import PathTest
from tests.mirrord_trace.supervisor.notify.openings import ABI, PAGE, Make, handed_on, in_c, memory, opening

TREES = LocalTrees(
    {b"/dev": True, b"/dev/mapper": False, b"/dev/mapper/here": True, b"/usr": True, b"/usr/lib/x": False}
)
IN_TREES = [
    *(b"/dev", b"/dev/", b"/dev/null", b"/dev/nope", b"/dev/.x/..y/...", b"//dev/./null", b"/dev/mapper/here/x"),
    *(b"/usr/lib", b"/usr/lib/y", b"/usr/lib/x.", b"/usr/" + b"x" * 240, b"/dev/\xc3\xa9"),
]
IN_NO_TREE = [
    *(b"", b"/", b"//", b"/.", b"/devx", b"/de", b"/de/v", b"/dev/mapper", b"/dev/mapper/x", b"/dev/./mapper//"),
    *(b"/dev/../dev/null", b"/dev/null/..", b"/..", b"/../dev", b"/usr/lib//x", b"/usr/lib/x/", b"/proc", b"/DEV/null"),
]


@pytest.mark.parametrize("path", IN_TREES + IN_NO_TREE)
def test_what_is_in_a_tree_that_is_local_is_let_go_when_it_is_first_met(make_receiver: Make, path: bytes) -> None:
    known = LocalPaths(TREES)
    with memory(1) as (area, place):
        area[: len(path) + 1] = path + b"\0"
        with opening([place]) as child:
            receive = make_receiver(child.listener, {ABI.numbers["openat"]: PathTest(1, known, 0)})
            assert handed_on(child, receive) == ([place] if path in IN_NO_TREE else [])


@pytest.mark.parametrize("before_end", [1, 4, 5, 9, 10])
@pytest.mark.parametrize(("path", "is_handed_on"), [(b"/dev/null", False), (b"/srv/null", True)])
def test_a_path_may_cross_a_page(make_receiver: Make, path: bytes, is_handed_on: bool, before_end: int) -> None:
    with memory(2) as (area, place):
        area[PAGE - before_end : PAGE - before_end + len(path) + 1] = path + b"\0"
        address = place + PAGE - before_end
        with opening([address]) as child:
            receive = make_receiver(child.listener, {ABI.numbers["openat"]: PathTest(1, LocalPaths(TREES))})
            assert handed_on(child, receive) == ([address] if is_handed_on else [])


def test_a_path_that_ends_nowhere_is_handed_on(make_receiver: Make) -> None:
    with memory(1) as (area, place):
        area[PAGE - 9 : PAGE] = b"/dev/null"
        with opening([place + PAGE - 9]) as child:
            receive = make_receiver(child.listener, {ABI.numbers["openat"]: PathTest(1, LocalPaths(TREES))})
            assert handed_on(child, receive) == [place + PAGE - 9]
            assert child.result() == -errno.EFAULT


@pytest.mark.parametrize(
    ("where", "path", "is_handed_on"),
    [
        ("/usr", b"lib", False),
        ("/usr", b"./lib//y/.", False),
        ("/usr", b"lib/x", True),
        ("/usr", b"./lib//x/y", True),
        ("/usr", b"../usr/lib", True),
        ("/usr", b"lib/..", True),
        ("/usr", b"..", True),
        ("/usr", b"", True),
        ("/", b"usr/lib", False),
        ("/", b"lib", True),
        ("/tmp", b"lib", True),
        ("/tmp", b"usr", True),
    ],
)
@pytest.mark.parametrize("by_descriptor", [0, None])
def test_a_relative_path_is_in_the_tree_that_its_directory_is_in(
    make_receiver: Make, where: str, path: bytes, is_handed_on: bool, by_descriptor: int | None
) -> None:
    before = os.getcwd()
    os.chdir(where)
    try:
        with memory(1) as (area, place):
            area[: len(path) + 1] = path + b"\0"
            with opening([place]) as child:
                test = PathTest(1, LocalPaths(TREES), by_descriptor)
                receive = make_receiver(child.listener, {ABI.numbers["openat"]: test})
                assert handed_on(child, receive) == ([place] if is_handed_on else [])
    finally:
        os.chdir(before)


@pytest.mark.parametrize(
    ("path", "is_handed_on"),
    [
        (b"/dev/nul", False),
        (b"/dev/null", True),
        (b"/dev/NuLL/x", True),
        (b"/dev//./null", True),
        (b"/dev/a/b", True),
        (b"/dev/a//b", True),
        (b"/dev/a/c", False),
        (b"/dev/\xc3\xa9", True),
        (b"/dev/x[", False),
        (b"/dev/x{", True),
    ],
)
def test_a_path_with_a_word_in_it_is_handed_on(make_receiver: Make, path: bytes, is_handed_on: bool) -> None:
    known = LocalPaths(LocalTrees({b"/dev": True}, (b"null", b"a/b", b"{")))
    with memory(1) as (area, place):
        area[: len(path) + 1] = path + b"\0"
        with opening([place]) as child:
            receive = make_receiver(child.listener, {ABI.numbers["openat"]: PathTest(1, known)})
            assert handed_on(child, receive) == ([place] if is_handed_on else [])


def test_trees_take_the_place_of_those_before_and_single_paths_stay(make_receiver: Make) -> None:
    known = LocalPaths()
    known.add(b"/single")
    paths = [b"/dev/x", b"/usr/x", b"/single", b"/"]
    changes = [
        LocalTrees({b"/dev": True}, (b"x",)),
        LocalTrees({b"/dev": True}),
        LocalTrees({b"/usr": True, b"/usr/y": False}),
        LocalTrees({b"/": True, b"/usr": False}),
        LocalTrees(),
    ]
    with memory(1) as (area, place):
        addresses = [place + 100 * number for number in range(len(paths))]
        for number, path in enumerate(paths):
            area[100 * number : 100 * number + len(path) + 1] = path + b"\0"
        with opening([*addresses, 0] * len(changes)) as child:  # the last of each round is always handed on
            receive = make_receiver(child.listener, {ABI.numbers["openat"]: PathTest(1, known)})
            found: list[list[bytes]] = []
            for trees in changes:
                known.use_trees(trees)
                found.append([])
                while (notified := receive()) is not None and notified[7]:
                    found[-1].append(paths[addresses.index(notified[7])])
                    child.listener.let_go(notified[0])
                assert notified is not None
                child.listener.let_go(notified[0])
    assert found == [
        [b"/dev/x", b"/usr/x", b"/"],
        [b"/usr/x", b"/"],
        [b"/dev/x", b"/"],
        [b"/usr/x"],
        [b"/dev/x", b"/usr/x", b"/"],
    ]


def test_there_may_be_many_trees(make_receiver: Make) -> None:
    known = LocalPaths(LocalTrees({b"/dev/%d" % number: number % 2 == 0 for number in range(3000)}))
    with memory(1) as (area, place):
        addresses: list[int] = []
        for number in range(0, 3000, 75):
            addresses.append(place + 100 * len(addresses))
            at = addresses[-1] - place
            area[at : at + 11] = (b"/dev/%d/x" % number).ljust(11, b"\0")
        with opening(addresses) as child:
            receive = make_receiver(child.listener, {ABI.numbers["openat"]: PathTest(1, known)})
            assert handed_on(child, receive) == addresses[1::2]


COMPONENTS = st.sampled_from(["usr", "lib", "x", "y", "X", "\u00e9", "z" * 120, "w" * 250, "", ".", "..", "...", ".x"])
SOME_PATHS = st.lists(COMPONENTS, min_size=1, max_size=6).map(lambda names: "/".join(["", *names]).encode())
SOME_TREES = st.builds(
    LocalTrees,
    nearest=st.dictionaries(
        st.lists(st.sampled_from([b"usr", b"lib", b"x", b"y"]), max_size=3).map(lambda names: b"/" + b"/".join(names)),
        st.booleans(),
    ),
    words=st.lists(st.sampled_from([b"x", b"lib/x", b"."]), max_size=1).map(tuple),
)
MOST_BYTES_IN_C = 256
"""Of the path and its NUL; longer ones the loop in C hands on."""


@pytest.mark.parametrize("make", [in_c, receiver_in_python], ids=["C", "Python"])
@settings(max_examples=30, deadline=None)
@given(trees=SOME_TREES, paths=st.lists(SOME_PATHS, min_size=10, max_size=40))
def test_the_loops_let_go_of_what_the_trees_hold(make: Make, trees: LocalTrees, paths: list[bytes]) -> None:
    longest = MOST_BYTES_IN_C - 1 if make is in_c else 4095
    with memory(40) as (area, place):
        for number, path in enumerate(paths):
            area[PAGE * number : PAGE * number + len(path) + 1] = path + b"\0"
        with opening([place + PAGE * number for number in range(len(paths))]) as child:
            receive = make(child.listener, {ABI.numbers["openat"]: PathTest(1, LocalPaths(trees))})
            found = [paths[(address - place) // PAGE] for address in handed_on(child, receive)]
    assert found == [path for path in paths if len(path) > longest or not trees.hold(path)]
