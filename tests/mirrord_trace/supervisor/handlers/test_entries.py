"""Entries of a listed directory are let go without a handler, as long as that is what the handler would do."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

import pytest

from mirrord_trace.supervisor.delivery.base import PASS
from mirrord_trace.supervisor.delivery.concerns import ExaminedPaths
from tests.mirrord_trace.supervisor.handlers.test_files import World, at_tree, tree_root, world

__all__ = ["at_tree", "tree_root", "world"]

MANY = 40


def examine(there: World, directory: int, count: int = MANY) -> None:
    """As who lists a directory does."""
    for number in range(count):
        assert there.verdict("newfstatat", b"entry-%d" % number, directory=directory) is PASS


def is_shown(there: World, path: bytes) -> bool:
    """Whether a delivery lets go of who examines this entry of the tree's /srv."""
    interests = there.handlers.interests({"newfstatat": 262})
    interest = next(interest for interest in interests if interest.rule.call == "newfstatat")
    assert isinstance(interest.concerns, ExaminedPaths)
    return not interest.concerns.match(path, there.tree.root + b"/srv")


def test_a_directory_that_is_listed_is_shown(world: Callable[..., World], at_tree: int) -> None:
    there = world()
    examine(there, at_tree, 3)
    assert not is_shown(there, b"entry")
    examine(there, at_tree)
    assert is_shown(there, b"entry")
    for name in (b"", b"module.py", b"..", b"a/b", b"node_modules", b"Node_Modules", b"clr-debug-pipe-1-2-in"):
        assert not is_shown(there, name)


def test_what_is_not_known_yet_is_asked_for(world: Callable[..., World], at_tree: int) -> None:
    there = world(ready=False)
    examine(there, at_tree)
    assert len(there.tree.ensured) == MANY
    assert not is_shown(there, b"entry")


def test_a_tree_that_must_be_asked_to_bring_things_is_asked(world: Callable[..., World], at_tree: int) -> None:
    there = world()
    there.tree.answers_always = False
    examine(there, at_tree)
    assert not is_shown(there, b"entry")


@pytest.mark.parametrize(
    "said",
    [
        {"local": (re.compile("^/srv/entry"),)},
        {"not_found": (re.compile("secret"),)},
        {"mapping": ((re.compile("^/opt"), "/srv"),)},
    ],
)
def test_where_patterns_decide_the_handler_is_asked(
    world: Callable[..., World], at_tree: int, said: dict[str, object]
) -> None:
    there = world(**said)
    for number in range(MANY):
        there.verdict("newfstatat", b"%d" % number, directory=at_tree)
    assert not is_shown(there, b"entry")


def test_what_is_written_here_ends_it(world: Callable[..., World], at_tree: int) -> None:
    there = world()
    examine(there, at_tree)
    assert is_shown(there, b"entry")
    there.verdict("open", b"/var/lib/state", flags=os.O_CREAT | os.O_WRONLY)
    assert not is_shown(there, b"entry")
    examine(there, at_tree)
    assert not is_shown(there, b"entry")


def test_a_program_that_starts_ends_it(world: Callable[..., World], at_tree: int) -> None:
    there = world()
    examine(there, at_tree)
    there.verdict("execve", b"/bin/true")
    assert not is_shown(there, b"entry")
