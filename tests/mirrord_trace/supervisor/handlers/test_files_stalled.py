"""Who takes calls asks no file system: one may be ours to serve, or served by somebody whose calls wait for us.

The server here is stopped, so whoever asks it waits.
"""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import attrs
import pytest
import trio

from mirrord_trace.config.model import FilesConfiguration
from mirrord_trace.policy.default_paths import Surroundings
from mirrord_trace.policy.files import FilesPolicy
from mirrord_trace.remote_files import RemoteFiles
from mirrord_trace.supervisor.delivery.base import AT_FDCWD, PASS, Call, UsePath
from mirrord_trace.supervisor.handlers.answer import Answer
from mirrord_trace.supervisor.handlers.files import FileHandlers
from mirrord_trace.supervisor.handlers.path_calls import PATHS
from mirrord_trace.tree.base import Tree
from tests.mirrord_trace.supervisor.handlers.test_files import ScriptedFiles, ScriptedTree
from tests.mirrord_trace.supervisor.programs.served_inside import in_child, served
from tests.mirrord_trace.support import Page, call_of
from tests.mirrord_trace.tree.private_mounts import in_private_mounts

ANSWERED_WITHIN_S = 10
"""By a thread that does not wait."""
DELETED = "a directory (deleted)"
"""Its name is just this."""


@attrs.define
class Stalled:
    """Files behind a server that is stopped."""

    mount: Path
    handlers: FileHandlers
    tree: ScriptedTree

    def answer(self, tid: int, name: str, *paths: bytes, directory: int = AT_FDCWD) -> Answer:
        """What a handler says to the call of a task. Fails when it waits."""
        memory = Page()
        arguments = [0] * 6
        for argument, path in zip(PATHS.get(name, ()), paths, strict=True):
            arguments[argument.index] = memory.put(path + b"\0")
            if argument.directory is not None:
                arguments[argument.directory] = directory
        if name == "readlinkat":
            arguments[2:4] = memory.put(bytes(256)), 256
        call: Call = attrs.evolve(call_of(name, *arguments, memory=memory), tid=tid)
        handle: Callable[[Call], Answer] = self.handlers.handle if paths else self.handlers.working_directory
        answers: list[Answer] = []
        thread = threading.Thread(target=lambda: answers.append(handle(call)), daemon=True)
        thread.start()
        thread.join(ANSWERED_WITHIN_S)
        (answer,) = answers or pytest.fail("who takes calls waits for a file system")
        return answer


@contextmanager
def stalled(
    directory: Path, positions: list[Callable[[Path], object]], *, as_tree: bool
) -> Iterator[tuple[Stalled, list[int]]]:
    """The files, and for each of the positions a task that has taken it."""
    (directory / "elsewhere").mkdir()
    root = directory / ("mount" if as_tree else "elsewhere")
    configuration = FilesConfiguration(read_only=(re.compile(f"^{re.escape(str(directory / 'mount'))}/(?!here)"),))
    surroundings = Surroundings(
        working_directory=b"/", home=b"/root", executable=b"/usr/bin/env", temporary=b"/tmp", search_path=()
    )
    tree = ScriptedTree(os.fsencode(root))
    policy = FilesPolicy.of(configuration, surroundings, ())
    handlers = FileHandlers(policy, {}, cast(Tree, tree), cast(RemoteFiles, ScriptedFiles()))
    with served(directory) as server:
        (directory / "behind" / DELETED).mkdir()
        (directory / "behind" / "link").symlink_to("file")
        tasks = [taking(position, directory / "mount") for position in positions]
        os.kill(server, signal.SIGSTOP)
        os.waitpid(server, os.WUNTRACED)
        try:
            yield Stalled(directory / "mount", handlers, tree), tasks
        finally:
            for task in tasks:
                os.kill(task, signal.SIGKILL)
                os.waitpid(task, 0)


def taking(position: Callable[[Path], object], mount: Path) -> int:
    reading, writing = os.pipe()

    def take() -> None:
        position(mount)
        os.write(writing, b"x")
        signal.pause()

    task = in_child(take)
    os.close(writing)
    assert os.read(reading, 1) == b"x"
    os.close(reading)
    return task


def still_waits(answer: Answer) -> bool:
    """Whether it is one that is waited for, and can be cancelled while it waits."""

    async def main() -> bool:
        assert isinstance(answer, Coroutine)
        with trio.move_on_after(0.1) as scope:
            await answer
        return scope.cancelled_caught

    return trio.run(main)


@in_private_mounts
def test_a_look_that_is_needed_holds_up_nobody(tmp_path: Path) -> None:
    with stalled(tmp_path, [lambda mount: None], as_tree=False) as (files, (task,)):
        mount = os.fsencode(files.mount)
        assert still_waits(files.answer(task, "chmod", mount + b"/file"))
        assert still_waits(files.answer(task, "rename", mount + b"/file", mount + b"/moved"))
        assert still_waits(files.answer(task, "stat", mount + b"/moved"))
        assert still_waits(files.answer(task, "execve", mount + b"/script"))
        assert still_waits(files.answer(task, "execve", mount + b"/here/script"))


@in_private_mounts
def test_what_a_task_has_open_is_asked_nothing(tmp_path: Path) -> None:
    def at_root(mount: Path) -> None:
        os.chroot(mount)

    def in_removed(mount: Path) -> None:
        os.chdir(mount / DELETED)

    def with_link(mount: Path) -> None:
        os.dup2(os.open(mount / "link", os.O_PATH | os.O_NOFOLLOW), 99)

    with stalled(tmp_path, [at_root, in_removed, with_link], as_tree=True) as (files, (rooted, removed, linked)):
        assert files.answer(rooted, "open", b"/srv/data/x") is PASS
        assert files.answer(rooted, "execve", b"/srv/data/x") is PASS
        assert still_waits(files.answer(removed, "getcwd"))
        files.tree.links[b"/link"] = b"file"
        assert not still_waits(files.answer(linked, "readlinkat", b"", directory=99))


@in_private_mounts
def test_what_the_tree_knows_is_not_asked_by_who_takes_calls(tmp_path: Path) -> None:
    with stalled(tmp_path, [lambda mount: None], as_tree=True) as (files, (task,)):
        for name in ("stat", "lstat", "access"):
            answer = files.answer(task, name, b"/srv/data/x")
            assert isinstance(answer, UsePath)
            assert answer.may_wait, name
