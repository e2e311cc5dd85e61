"""Whoever of a run is killed with SIGKILL, while the command works with the target's files: nothing stays behind.

No process, no mount, no directory. Root mounts himself; an ordinary user's mount is taken away by fusermount3.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest

from mirrord_trace.supervisor.descent import children_of
from mirrord_trace.targets.demo import CONFIG
from tests.mirrord_trace.supervisor.harness import TIMEOUT_S
from tests.mirrord_trace.supervisor.test_ends import Marked
from tests.mirrord_trace.tree.private_mounts import (
    IS_ROOT,
    USER,
    fusectl,
    let_everybody_reach,
    mounts_below,
    where_users_may_mount,
)
from tests.rights import as_user
from tests.waiting import holds_within, threads_of

ROOT = Path(__file__).parents[2]
ORDERS = [
    ["supervisor"],
    ["first", "supervisor"],
    ["second", "supervisor"],
    ["supervisor", "first"],
    ["supervisor", "second"],
    ["process group"],
]
"""Who is killed, one after the other: the supervisor, its workspace's guardians, the supervisor with the command."""

# Works in the tree, holds one of its files and has its pages mapped.
COMMAND = f"""
import mmap, os, sys, time
os.chdir(os.path.dirname("{CONFIG}"))
file = open("{CONFIG}", "rb")
mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
assert b"offer" in mapped[:]
print("works", flush=True)
time.sleep(1000)
"""

# Makes files there and removes them, without a pause.
BUSY_COMMAND = f"""
import os, threading
def work(path):
    while True:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR))
        os.unlink(path)
for number in range(8):
    threading.Thread(target=work, args=[f"{os.path.dirname(CONFIG)}/new-{{number}}"]).start()
print("works", flush=True)
"""
_LOOK_FOR_S = 0.3


@attrs.define
class Run:
    process: subprocess.Popen[bytes]
    guardians: list[int] = attrs.field(factory=list)

    def reach(self, stage: str, directory: Path) -> None:
        """Returns when the tree is "mounted", perhaps before the command is started, or the command "works" in it."""
        stdout = self.process.stdout
        assert stdout is not None
        if stage == "works":
            assert select.select([stdout], [], [], TIMEOUT_S)[0], "the command says nothing"
            assert stdout.readline() == b"works\n", self.said()
        else:
            self.wait_for_mount(directory)
        name = Path(f"/proc/{self.process.pid}/cmdline").read_bytes()
        alike = [pid for pid in sorted(children_of(self.process.pid)) if cmdline_of(pid) == name]
        self.guardians = [pid for pid in alike if os.getsid(pid) == pid and comm_of(pid) != "mirrord-guard"][:2]
        assert len(self.guardians) == 2

    def wait_for_mount(self, directory: Path) -> None:
        """The kernel tells of changes of a mount table (proc_pid_mounts(5)). Fails if the run ends first."""
        with open("/proc/self/mountinfo") as table, open(os.pidfd_open(self.process.pid)) as end:
            poll = select.poll()
            poll.register(table, select.POLLPRI)
            poll.register(end, select.POLLIN)
            while not mounts_below(directory):
                ready = dict(poll.poll(TIMEOUT_S * 1000))
                assert ready, "nothing was mounted"
                assert end.fileno() not in ready, f"it ended before anything was mounted:\n{self.said()}"

    def said(self) -> str:
        """All of its standard error, once it has ended."""
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()

    def kill(self, who: str) -> None:
        if who == "supervisor":
            self.process.kill()
            self.process.wait(TIMEOUT_S)
        elif who == "process group":
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(TIMEOUT_S)
        else:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.guardians[0 if who == "first" else 1], signal.SIGKILL)

    def is_asked(self, asking: list[int]) -> bool:
        """Whether a thread of these processes waits for an answer, and the supervisor has nothing to receive."""
        threads = [thread for pid in asking for thread in threads_of(pid)]
        is_waiting = any(wait_channel(thread) == "request_wait_answer" for thread in threads)
        return is_waiting and ") S " in Path(f"/proc/{self.process.pid}/stat").read_text()


def cmdline_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def wait_channel(thread: Path) -> str:
    """The kernel's function in which a thread waits: proc_pid_wchan(5)."""
    try:
        return (thread / "wchan").read_text()
    except OSError:
        return ""


def comm_of(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


@contextmanager
def running(
    directory: Path, marked: Marked, *options: str, command: str = COMMAND, rights: list[str] | None = None
) -> Iterator[Run]:
    process = subprocess.Popen(
        [
            *(rights or []),
            *(sys.executable, "-m", "mirrord_trace", "run", "--target", "demo", *options),
            *("--", "/usr/bin/env", "python3", "-c", command),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "PYTHONPATH": os.pathsep.join(
                filter(None, [*map(str, (ROOT, ROOT / "agent", ROOT / "syscalls")), *sys.path])
            ),
            "TMPDIR": str(directory),
            "MARK": marked.mark,
        },
        start_new_session=True,
    )
    with process:
        try:
            yield Run(process)
        finally:
            process.kill()


def ordinary_users_rights(directory: Path) -> list[str]:
    """Runs a command as an ordinary user, who can reach this checkout, the interpreter and `directory`."""
    if not IS_ROOT:
        return []
    let_everybody_reach([ROOT, directory, *map(Path, (sys.prefix, sys.base_prefix, *filter(None, sys.path)))])
    return as_user(USER)


@contextmanager
def silent_agent(run: Run, marked: Marked, *, asking: list[int]) -> Iterator[None]:
    """The agent answers nothing while a thread of one of these processes waits for a file."""
    agents = [pid for pid in marked.pids() if b"\0-m\0mirrord_agent\0" in cmdline_of(pid)]
    assert agents, "none of the processes is the agent"
    try:
        if not holds_within(TIMEOUT_S, lambda: is_caught(run, agents, asking)):
            run.kill("supervisor")
            pytest.fail(f"nobody waits for a file: {run.said()}")
        yield
    finally:
        send(agents, signal.SIGCONT)


def is_caught(run: Run, agents: list[int], asking: list[int]) -> bool:
    """Stops the agent; lets it go on if nobody waits then."""
    send(agents, signal.SIGSTOP)
    if holds_within(_LOOK_FOR_S, lambda: run.is_asked(asking)):
        return True
    send(agents, signal.SIGCONT)
    return False


def send(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """For temporary directories of anybody's. Nothing is mounted there in the end, nor is any left."""
    made = tmp_path / "tmp"
    made.mkdir()
    made.chmod(0o777)
    yield made
    for mountpoint in reversed(mounts_below(made)):
        subprocess.run([*(["umount", "-l"] if IS_ROOT else ["fusermount3", "-uz"]), mountpoint], check=True)
    shutil.rmtree(made)


@pytest.fixture
def marked() -> Iterator[Marked]:
    marked = Marked()
    yield marked
    for pid in marked.pids():
        os.kill(pid, signal.SIGKILL)


def assert_nothing_is_left(directory: Path, marked: Marked) -> None:
    marked.assert_gone()
    assert mounts_below(directory) == []
    assert list(directory.iterdir()) == []


@pytest.mark.parametrize("order", ORDERS, ids=" ".join)
@pytest.mark.parametrize("stage", ["mounted", "works"])
@pytest.mark.parametrize("delivery", ["notify", "ptrace"])
def test_with_fuse(directory: Path, marked: Marked, delivery: str, stage: str, order: list[str]) -> None:
    with running(directory, marked, "--fs-tree", "fuse", "--delivery", delivery) as run:
        run.reach(stage, directory)
        for who in order:
            run.kill(who)
        assert_nothing_is_left(directory, marked)


@pytest.mark.parametrize("order", ORDERS, ids=" ".join)
@where_users_may_mount
def test_with_fuse_of_an_ordinary_user(directory: Path, marked: Marked, order: list[str]) -> None:
    with running(directory, marked, "--fs-tree", "fuse", rights=ordinary_users_rights(directory)) as run:
        run.reach("works", directory)
        for who in order:
            run.kill(who)
        assert_nothing_is_left(directory, marked)


@pytest.mark.parametrize("order", ORDERS, ids=" ".join)
@pytest.mark.parametrize("delivery", ["notify", "ptrace"])
def test_while_files_are_waited_for(directory: Path, marked: Marked, delivery: str, order: list[str]) -> None:
    waited_for(directory, marked, delivery, order, None)


@pytest.mark.parametrize("order", ORDERS, ids=" ".join)
@pytest.mark.parametrize("delivery", ["notify", "ptrace"])
@where_users_may_mount
def test_while_an_ordinary_users_files_are_waited_for(
    directory: Path, marked: Marked, delivery: str, order: list[str]
) -> None:
    fusectl()
    waited_for(directory, marked, delivery, order, ordinary_users_rights(directory))


def waited_for(directory: Path, marked: Marked, delivery: str, order: list[str], rights: list[str] | None) -> None:
    """The supervisor is asked, by a thread of its own or by the command, and has no answer yet: no signal ends that."""
    options = ["--fs-tree", "fuse", "--fs-mode", "write", "--delivery", delivery]
    with running(directory, marked, *options, command=BUSY_COMMAND, rights=rights) as run:
        run.reach("works", directory)
        # Under notify the supervisor makes the calls, in threads of its own.
        asking = [run.process.pid] if delivery == "notify" else marked.pids()
        with silent_agent(run, marked, asking=asking):
            for who in order:
                run.kill(who)
        assert_nothing_is_left(directory, marked)


@pytest.mark.parametrize("order", ORDERS, ids=" ".join)
def test_with_copies(directory: Path, marked: Marked, order: list[str]) -> None:
    with running(directory, marked, "--fs-tree", "copy") as run:
        run.reach("works", directory)
        for who in order:
            run.kill(who)
        assert_nothing_is_left(directory, marked)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("tree", ["fuse", "copy"])
def test_end_in_good_order(directory: Path, marked: Marked, tree: str, number: signal.Signals) -> None:
    """Also when the supervisor is killed on its way out, at whatever point."""
    for is_killed in (False, True):
        with running(directory, marked, "--fs-tree", tree) as run:
            run.reach("works", directory)
            run.process.send_signal(number)
            if is_killed:
                run.kill("supervisor")
            else:
                assert run.process.wait(TIMEOUT_S) == 128 + number
            assert_nothing_is_left(directory, marked)


def test_guardian_of_the_tree(directory: Path, marked: Marked) -> None:
    with running(directory, marked, "--fs-tree", "fuse", "--delivery", "notify") as run:
        run.reach("works", directory)
        (guardian,) = (pid for pid in children_of(run.process.pid) if comm_of(pid) == "mirrord-guard")
        os.kill(guardian, signal.SIGKILL)
        assert run.process.wait(TIMEOUT_S) == 1
        assert_nothing_is_left(directory, marked)
