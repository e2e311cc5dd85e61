"""Calls on local paths never come to a handler, under either delivery; those on others do."""

from __future__ import annotations

import errno
import sys

import pytest

from tests.mirrord_trace.supervisor.harness import run

pytestmark = pytest.mark.usefixtures("delivery")

PROGRAM = """\
import os

def attempt(path, directory=None):
    try:
        os.close(os.open(path, os.O_RDONLY, dir_fd=directory))
        return 0
    except OSError as error:
        return error.errno

directory = os.open("/usr", os.O_RDONLY)
found = [attempt(path) for path in ("/etc/group", "/etc//passwd", "/usr/share/x", "/usr/lib/nothing")]
found += [attempt(path, directory) for path in ("lib", "./share", "share/..")]
os.chdir("/usr/lib")
found += [attempt(path) for path in (".", "nothing", "../lib")]
os.chdir("/")
found += [attempt(path) for path in ("usr/lib", "usr/share")]
print(*found)
"""


def test_what_is_in_a_local_tree_is_opened_and_all_else_is_asked_about() -> None:
    ended = run("local_paths", sys.executable, "-I", "-S", "-c", PROGRAM)
    absolute = [0, errno.EUCLEAN, errno.EUCLEAN, errno.ENOENT]
    by_descriptor = [0, errno.EUCLEAN, errno.EUCLEAN]
    by_working_directory = [0, errno.ENOENT, errno.EUCLEAN, 0, errno.EUCLEAN]
    assert ended.stdout.split() == [str(number) for number in (*absolute, *by_descriptor, *by_working_directory)]
    assert ended.exit_code == 0
