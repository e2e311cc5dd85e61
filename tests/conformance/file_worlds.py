"""Worlds for programs that work on files: natively in a pod with a tree of its own, or outside with the pod's files.

What /srv/data is in the pod does not exist outside, so a program that prints its contents has got them from the pod.
Programs that read run in one pod with one tree, which nobody changes: the last test of them looks. Programs that write
get an empty directory each, and what they leave there is compared, too, as the pod sees it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import attrs

from tests.conformance.harness import Outcome, World
from tests.conformance.pods import ConformancePod

TREE_PROGRAM = Path(__file__).with_name("file_tree.py")
DATA = "/srv/data"
EXACT = "/srv/exact"
CHANGES = "/srv/changes"
TREES = ("fuse", "copy")
"""`--fs-tree` of the tool takes these names."""

IN_POD = {
    # So that /srv and /opt are file systems of the pod's own.
    "/srv/README": b"Only in the pod.\n",
    "/opt/README": b"Only in the pod.\n",
    "/pod-only/one": b"first\n",
    "/pod-only/two": b"second\n",
}


def tree_command(*arguments: str) -> list[str]:
    return [sys.executable, "-I", "-B", str(TREE_PROGRAM), *arguments]


def files_pod() -> ConformancePod:
    """A pod with the tree of `file_tree`."""
    assert not any(map(os.path.lexists, (DATA, CHANGES, "/srv/volume", EXACT, "/opt/volume", "/pod-only"))), (
        "what only the pod may have is here: move it away"
    )
    environment = {"POD_NAME": "files-0", "PATH": os.environ.get("PATH", os.defpath)}
    return ConformancePod(hostname="files-0", files=IN_POD, environment=environment, programs=[tree_command("make")])


def in_pod(pod: ConformancePod, *command: str) -> str:
    """What a command of the test itself prints in the pod. Fails when it fails."""
    done = pod.run(command)
    assert done.returncode == 0, f"{command} in the pod: {done.stderr.decode(errors='replace')}"
    return done.stdout.decode(errors="backslashreplace")


def left_over() -> list[Path]:
    """Workspaces, which are where the tool mounts, without a supervisor: it would hold their lock."""
    found = []
    for path in Path(os.path.realpath(tempfile.gettempdir())).glob("mirrord-trace-????????????"):
        with contextlib.suppress(FileNotFoundError):
            directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Of another mode is one that is just being made.
                found += [path] * (stat.S_IMODE(os.fstat(directory).st_mode) == 0o711 and path.exists())
            except BlockingIOError:
                continue
            finally:
                os.close(directory)
    return found


@attrs.define
class FileWorld(World):
    """A `World` whose traced runs use one of the trees."""

    tree: str = ""

    def command(self, program: Sequence[str | Path], options: Sequence[str] = ()) -> list[str]:
        return super().command(program, ["--fs-tree", self.tree, *options])

    def check_what_is_left(self) -> None:
        assert not left_over()


@attrs.define
class ChangingWorld(FileWorld):
    """A `FileWorld` for programs that change a directory of the pod: `remains` are what they left natively."""

    remains: dict[tuple[str, ...], str] = attrs.field(factory=dict)

    def change(
        self,
        program: Sequence[str | Path],
        directory: str,
        *,
        options: Sequence[str] = ("--fs-mode", "write"),
        timeout_s: float = 60,
    ) -> Outcome:
        """Run a program, to whose arguments the directory is added, in that directory made anew.

        Fails unless it succeeds, and output and all that is then in the directory are as after the native run.
        """
        argv = (*map(str, program), directory)
        if argv not in self.remains:
            in_pod(self.pod, *tree_command("reset", directory))
            self.native(argv, timeout_s=timeout_s)
            self.remains[argv] = in_pod(self.pod, *tree_command("snapshot", directory))
        if not self.traced:
            return self.run(argv)
        in_pod(self.pod, *tree_command("reset", directory))
        outcome = self.run(argv, options=options, timeout_s=timeout_s)
        found = in_pod(self.pod, *tree_command("snapshot", directory))
        assert found.splitlines() == self.remains[argv].splitlines()
        return outcome
