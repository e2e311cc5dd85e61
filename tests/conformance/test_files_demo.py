"""The files of the demo pod, which is made for a run: what programs print here is what they print in it meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest

from tests.conformance import build
from tests.conformance.file_worlds import CHANGES, DATA, left_over, tree_command
from tests.conformance.harness import become_subreaper, descendants, nothing_left
from tests.mirrord_trace.tree.private_mounts import IS_ROOT, become_user, let_everybody_reach, where_users_may_mount

SHOP, CONFIG = "/srv/shop", "/srv/shop/shop.conf"
TOOL = ["timeout", "--kill-after=5", "100", sys.executable, "-m", "mirrord_trace", "run", "--quiet"]
END = "exit status"


@attrs.frozen
class Demo:
    """A shell that runs here with the demo pod as target. Everything ends when `TOOL` has lasted too long."""

    shell: subprocess.Popen[str]
    pid: int
    """Process 1 of the pod."""

    def traced(self, *command: str | Path) -> list[str]:
        """What a program prints that the shell starts, and its exit status."""
        assert self.shell.stdin is not None
        assert self.shell.stdout is not None
        self.shell.stdin.write(f"{' '.join(map(str, command))} < /dev/null; echo {END} $?\n")
        lines: list[str] = []
        while not lines or not lines[-1].startswith(END):
            line = self.shell.stdout.readline()
            assert line, f"the shell has ended: {lines}"
            lines.append(line.rstrip("\n"))
        return lines

    def native(self, *command: str | Path) -> list[str]:
        """The same of a program in the pod."""
        namespaces = [f"--target={self.pid}", "--net", "--mount", "--uts", "--ipc", "--pid", f"--wdns={os.getcwd()}"]
        done = subprocess.run(
            ["nsenter", *namespaces, "--", *map(str, command)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            errors="backslashreplace",
            timeout=60,
            check=False,
        )
        return [*done.stdout.splitlines(), f"{END} {done.returncode}"]

    def remains(self, *command: str) -> list[str]:
        """What a command of `file_tree` prints in the pod."""
        lines = self.native(*tree_command(*command))
        assert lines[-1] == f"{END} 0"
        return lines

    def assert_same(self, *command: str | Path) -> list[str]:
        """What a program prints both here and in the pod."""
        lines = self.traced(*command)
        assert lines == self.native(*command)
        assert lines[-1] == f"{END} 0"
        return lines


def number_in_pod(pid: int) -> str:
    return Path(f"/proc/{pid}/status").read_text().partition("\nNSpid:")[2].splitlines()[0].split()[-1]


@contextmanager
def demo(delivery: str, tree: str, *options: str) -> Iterator[Demo]:
    """A demo whose pod has the tree of `file_tree`, too."""
    become_subreaper()
    command = [*TOOL, "--delivery", delivery, "--fs-tree", tree, *options, "--", "/bin/sh"]
    with (
        nothing_left(),
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            errors="backslashreplace",
            bufsize=1,
            env=os.environ | {"LC_ALL": "C.UTF-8"},
        ) as shell,
    ):
        try:
            # Nothing is asked of the pod before the shell runs.
            assert Demo(shell, 0).traced("true") == [f"{END} 0"]
            inside = [pid for pid in descendants(shell.pid) if os.path.exists(f"/proc/{pid}/root{CONFIG}")]
            (first,) = (pid for pid in inside if number_in_pod(pid) == "1")
            demo = Demo(shell, first)
            demo.remains("fill")
            yield demo
            assert shell.stdin is not None
            shell.stdin.close()
            assert shell.wait(20) == 0
        finally:
            shell.terminate()
    assert not left_over()


@pytest.mark.parametrize(("delivery", "tree"), [("notify", "fuse"), ("ptrace", "fuse"), ("notify", "copy")])
def test_programs_read_what_the_pod_has(delivery: str, tree: str) -> None:
    go = build.go_program("files")
    with demo(delivery, tree) as pod:
        assert "offer = tea, 4.20 EUR" in pod.assert_same("cat", CONFIG)
        assert pod.assert_same("grep", "-r", "offer", SHOP)[0] == f"{CONFIG}:offer = tea, 4.20 EUR"
        assert CONFIG in pod.assert_same("find", SHOP)
        assert "copied 5243003 OK" in pod.assert_same(go, DATA)
        assert "copyfile True" in pod.assert_same(*build.python_program("file_reading"), DATA)


def test_programs_write_what_the_pod_has(delivery: str) -> None:
    programs: dict[str, Sequence[str | Path]] = {
        "making": [build.c_program("file_making", "musl")],
        "go": [build.go_program("filechanges")],
        "python": build.python_program("file_writing"),
    }
    with demo(delivery, "fuse", "--fs-mode", "write") as pod:
        for name, program in programs.items():
            directory = f"{CHANGES}/{name}"
            pod.remains("reset", directory)
            native = pod.native(*program, directory)
            left = pod.remains("snapshot", directory)
            pod.remains("reset", directory)
            assert pod.traced(*program, directory) == native
            assert pod.remains("snapshot", directory) == left
            assert native[-1] == f"{END} 0"
        assert pod.traced("mv", CONFIG, f"{SHOP}/moved") == [f"{END} 0"]
        assert pod.native("ls", SHOP) == ["moved", f"{END} 0"]


def test_nothing_of_the_pod_is_changed_unless_that_is_said(delivery: str) -> None:
    with demo(delivery, "fuse") as pod:
        before = pod.remains("snapshot", SHOP)
        told = [f"rm: cannot remove '{CONFIG}': Read-only file system", f"{END} 1"]
        assert pod.traced("rm", CONFIG, "2>&1") == told
        # There is no such directory here.
        assert pod.traced("mkdir", f"{SHOP}/new", "2>&1")[0].endswith(": No such file or directory")
        assert pod.traced("cp", CONFIG, f"{SHOP}/new", "2>&1")[0].endswith(": No such file or directory")
        assert pod.remains("snapshot", SHOP) == before


def test_nothing_of_the_pod_where_everything_is_to_be_local(delivery: str) -> None:
    with demo(delivery, "auto", "--fs-mode", "local") as pod:
        assert pod.traced("cat", CONFIG, "2>&1") == [f"cat: {CONFIG}: No such file or directory", f"{END} 1"]
        assert CONFIG in pod.native("find", SHOP)


@where_users_may_mount
def test_an_ordinary_user_reads_and_writes(delivery: str, tmp_path: Path) -> None:
    """He makes the pod in a user namespace, and mounts with fusermount3."""
    tmp_path.chmod(0o777)
    if IS_ROOT:
        let_everybody_reach([build.ROOT, tmp_path, *map(Path, (sys.prefix, sys.base_prefix, *filter(None, sys.path)))])
    become_user()
    script = f"cd {SHOP} && grep -r offer . && echo new > new && mv new newer && cat newer && rm shop.conf && ls && pwd"
    done = subprocess.run(
        [*TOOL, "--delivery", delivery, "--fs-tree", "fuse", "--fs-mode", "write", "--", "/bin/sh", "-c", script],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["./shop.conf:offer = tea, 4.20 EUR", "new", "newer", SHOP]
    assert os.listdir(tmp_path) == []
