"""Calls that a task makes for us while it waits for our answer: what it sees of them, and what may come between.

Each is tried with and without WAIT_KILLABLE_RECV: without it the order to stop ends the task's wait, not our answer.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest

from mirrord_trace.supervisor.delivery.base import PATH_MAX
from mirrord_trace.supervisor.delivery.notify.surgery import make_in_task, why_not_traced
from tests.mirrord_trace.supervisor.harness import program
from tests.mirrord_trace.supervisor.notify.ward import ABI, Notified, Ward, ward

Start = Callable[..., AbstractContextManager[Ward]]


@pytest.fixture(params=[True, False], ids=["killable", "interruptible"])
def start(request: pytest.FixtureRequest) -> Start:
    return partial(ward, killable=request.param)


def remote(path: str | Path) -> str:
    """The path that a program names in order to get to `path`."""
    return f"/remote{path}"


def said(start: Start, *arguments: str, name: str = "patient") -> list[str]:
    """What a program says that ends well."""
    with start(name, *arguments) as patient:
        lines = patient.output().splitlines()
        assert patient.wait() == 0
        return lines


def test_chdir(start: Start, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    paths = [remote(first), remote(tmp_path / "missing"), str(tmp_path), remote(second)]
    assert said(start, "chdir", *paths) == [
        "chdir: made",
        f"in {first}",
        "chdir: No such file or directory",
        f"in {first}",
        "chdir: made",
        f"in {tmp_path}",
        "chdir: made",
        f"in {second}",
    ]


def test_chdir_in_a_thread(start: Start, tmp_path: Path) -> None:
    assert said(start, "chdir_in_thread", remote(tmp_path)) == ["chdir: made", f"in {tmp_path}"]


def test_registers_are_as_after_a_call(start: Start, tmp_path: Path) -> None:
    assert said(start, remote(tmp_path), name="verdicts") == ["chdir: 0"]
    assert said(start, remote(tmp_path / "missing"), name="verdicts") == [f"chdir: {-errno.ENOENT}"]


def test_longest_path(start: Start, tmp_path: Path) -> None:
    path = remote("/" * (PATH_MAX - 1 - len(remote(tmp_path))) + str(tmp_path))
    assert len(path) == PATH_MAX - 1
    assert said(start, "chdir", path) == ["chdir: made", f"in {tmp_path}"]


def test_path_that_is_too_long_for_the_kernel(start: Start, tmp_path: Path) -> None:
    """The place of the tree's root in front of it may make it so."""
    with start("patient", "chdir", remote(tmp_path)) as patient:
        patient.root = b"/" * PATH_MAX
        assert patient.output().splitlines()[0] == f"chdir: {os.strerror(errno.ENAMETOOLONG)}"


def test_path_that_no_room_is_for() -> None:
    """Nothing is done then: the task does not even have to exist."""
    with pytest.raises(OSError, match="File name too long") as raised:
        make_in_task(
            2**22 + 1, ABI, "chdir", [0], {0: b"/" * 20_000}, pytest.fail, check=pytest.fail, under_surgery=set()
        )
    assert raised.value.errno == errno.ENAMETOOLONG


def test_open_with_o_path(start: Start, tmp_path: Path) -> None:
    inode = tmp_path.stat().st_ino
    lines = said(start, "o_path", remote(tmp_path))
    assert lines[-2:] == [f"openat: inode {inode}, O_PATH FD_CLOEXEC", f"openat2: inode {inode}, O_PATH"]
    assert lines[:-2] in ([], [f"open: inode {inode}, O_PATH"])


def test_threads_at_once(start: Start, tmp_path: Path) -> None:
    for number in range(8):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "number").write_text(str(number))
    assert said(start, "threads", *(remote(tmp_path / str(number)) for number in range(8))) == ["failures: 0"]


def test_room_where_something_is(start: Start, tmp_path: Path) -> None:
    assert said(start, "occupied", remote(tmp_path)) == [
        "chdir: made",
        f"in {tmp_path}",
        "ours has a 0, 0 more mappings",
    ]


@pytest.mark.parametrize("call", ["execve", "execveat", "execve_in_thread"])
def test_execution(start: Start, call: str) -> None:
    signals = [f"signal {signal.SIGUSR1}: blocked"] if call == "execve" else []
    assert said(start, call, remote(program("patient"))) == ["patient, process as a whole", *signals]


@pytest.mark.parametrize("call", ["execve", "execve_in_thread"])
def test_execution_that_fails(start: Start, tmp_path: Path, call: str) -> None:
    assert said(start, call, remote(tmp_path)) == ["execve: Permission denied"]
    assert said(start, call, remote(tmp_path / "missing")) == ["execve: No such file or directory"]


def test_vfork_children_leave_nothing_in_their_parent_but_one_room(start: Start) -> None:
    assert said(start, "vfork", remote("/bin/true")) == ["ended with 0, 0 more mappings"]


@pytest.mark.parametrize("after_signal", ["restart", "interrupt"])
def test_signals_all_the_time(start: Start, tmp_path: Path, after_signal: str) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    assert said(start, "storm", remote(first), remote(second), after_signal) == ["made 300, with alarms"]


def test_stops_all_the_time(start: Start, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    with start("patient", "storm", remote(first), remote(second), "restart") as patient:
        is_over = threading.Event()

        def disturb() -> None:
            while not is_over.wait(0.0005):
                patient.signal(signal.SIGSTOP)
                patient.signal(signal.SIGCONT)

        disturber = threading.Thread(target=disturb)
        disturber.start()
        try:
            assert patient.output().splitlines() == ["made 300, with alarms"]
        finally:
            is_over.set()
            disturber.join()


def test_signals_that_come_meanwhile_come_afterwards(start: Start, tmp_path: Path) -> None:
    with start("patient", "signals", remote(tmp_path)) as patient:
        patient.holds_ours = True
        call = patient.next_of_ours()
        patient.signal(signal.SIGUSR1)
        patient.signal(signal.SIGUSR2)
        patient.listener.let_go(call.identity)
        assert patient.output().splitlines() == [
            "chdir: made",
            f"in {tmp_path}",
            f"seen 1 from {os.getpid()}",
            f"signal {signal.SIGUSR1}: blocked pending",
        ]
        assert patient.wait() == 0


def test_a_stop_meanwhile_comes_afterwards(start: Start, tmp_path: Path) -> None:
    with start("patient", "chdir", remote(tmp_path)) as patient:
        patient.holds_ours = True
        call = patient.next_of_ours()
        patient.signal(signal.SIGSTOP)
        patient.holds_ours = False
        patient.listener.let_go(call.identity)
        status = patient.wait()
        assert os.WIFSTOPPED(status)
        assert os.WSTOPSIG(status) == signal.SIGSTOP
        patient.signal(signal.SIGCONT)
        assert patient.output().splitlines() == ["chdir: made", f"in {tmp_path}"]
        assert patient.wait() == 0


def test_continued_before_it_could_stop(start: Start, tmp_path: Path) -> None:
    with start("patient", "chdir", remote(tmp_path)) as patient:
        patient.holds_ours = True
        call = patient.next_of_ours()
        patient.signal(signal.SIGSTOP)
        patient.signal(signal.SIGCONT)
        patient.holds_ours = False
        patient.listener.let_go(call.identity)
        assert patient.output().splitlines() == ["chdir: made", f"in {tmp_path}"]
        assert patient.wait() == 0


def test_stopped_before(start: Start, tmp_path: Path) -> None:
    """The call is made anew when the process goes on."""
    with start("patient", "chdir", remote(tmp_path)) as patient:
        stopped: list[Notified] = []

        def stop(call: Notified) -> None:
            if not stopped:
                stopped.append(call)
                patient.signal(signal.SIGSTOP)

        patient.before = stop
        status = patient.wait()
        assert os.WIFSTOPPED(status)
        patient.signal(signal.SIGCONT)
        assert patient.output().splitlines() == ["chdir: made", f"in {tmp_path}"]
        assert patient.wait() == 0


@pytest.mark.parametrize("result", [errno.EINTR, errno.ENOTDIR])
def test_an_error_of_the_call_is_its_result(start: Start, tmp_path: Path, result: int) -> None:
    with start("patient", "chdir", remote(tmp_path)) as patient:
        patient.holds_ours = True
        patient.listener.answer(patient.next_of_ours().identity, -result)
        assert patient.output().splitlines() == [f"chdir: {os.strerror(result)}", f"in {os.getcwd()}"]
        assert patient.wait() == 0


@pytest.mark.parametrize("result", [512, 513, 514])
def test_a_call_that_the_kernel_wants_made_again_is_made_again(start: Start, tmp_path: Path, result: int) -> None:
    with start("patient", "chdir", remote(tmp_path)) as patient:
        patient.holds_ours = True
        patient.listener.answer(patient.next_of_ours().identity, -result)
        patient.listener.let_go(patient.next_of_ours().identity)
        assert patient.output().splitlines() == ["chdir: made", f"in {tmp_path}"]
        assert patient.wait() == 0


def test_killed_before(start: Start, tmp_path: Path) -> None:
    with start("patient", "chdir", remote(tmp_path)) as patient:
        killed = []

        def kill(call: Notified) -> None:
            patient.signal(signal.SIGKILL)
            killed.append(patient.wait())

        patient.before = kill
        assert patient.output() == ""
    assert killed == [signal.SIGKILL]
    assert patient.gone == 1


def test_killed_meanwhile(start: Start, tmp_path: Path) -> None:
    with start("patient", "chdir", remote(tmp_path)) as patient:
        patient.holds_ours = True
        patient.next_of_ours()
        patient.signal(signal.SIGKILL)
        assert patient.output() == ""
        assert patient.wait() == signal.SIGKILL
    assert patient.gone == 1


def test_killed_at_any_moment(start: Start, tmp_path: Path) -> None:
    """Wherever it meets the task, it dies of it, and its parent is told."""
    for delay_us in range(0, 400, 5):
        with start("patient", "chdir", remote(tmp_path)) as patient:
            killer = threading.Timer(delay_us / 1e6, patient.signal, [signal.SIGKILL])
            patient.before = lambda _, killer=killer: killer.start()
            patient.output()
            assert patient.wait() in (0, signal.SIGKILL)
            if killer.ident is not None:  # else the call came before we could wait for it
                killer.join()


@pytest.mark.parametrize("beside", ["thread", "leader"])
@pytest.mark.parametrize("where", [str, remote], ids=["itself", "by surgery"])
def test_another_thread_executes_meanwhile(
    start: Start, tmp_path: Path, beside: str, where: Callable[[str], str]
) -> None:
    with start("patient", f"exec_beside_{beside}", remote(tmp_path), where(program("patient"))) as patient:
        patient.holds_ours = True
        patient.next_of_ours()
        patient.holds_ours = False
        os.write(patient.stdin, b"x")
        assert patient.output().splitlines() == ["patient, process as a whole"]
        assert patient.wait() == 0
    assert patient.gone == 1


def test_task_that_is_traced_already(start: Start, tmp_path: Path) -> None:
    """Nothing is done, and the task still waits: whoever asked for it gives the answer."""
    with start("patient", "chdir", remote(tmp_path)) as patient:
        tracers: list[subprocess.Popen[str]] = []
        reasons = []

        def trace(call: Notified) -> None:
            tracer = subprocess.Popen(
                [sys.executable, "-c", TRACE, str(call.tid)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            tracers.append(tracer)
            assert tracer.stdout is not None
            tracer.stdout.readline()
            reasons.append(why_not_traced(call.tid))

        patient.before = trace
        assert patient.output().splitlines()[0] == f"chdir: {os.strerror(errno.EIO)}"
        assert [error.errno for error in patient.refused] == [errno.EPERM]
        (tracer,) = tracers
        assert reasons == [
            f"process {patient.pid} is traced already (by process {tracer.pid}, a debugger perhaps)",
        ]
        tracer.communicate()


TRACE = """if 1:
    import sys
    from mirrord_trace.supervisor.delivery.ptrace import requests
    requests.seize(int(sys.argv[1]), 0)
    print(flush=True)
    sys.stdin.read()
"""


def test_task_that_must_not_be_traced() -> None:
    assert why_not_traced(os.getpid()).startswith(f"process {os.getpid()} cannot be traced (ptrace(2)); ")
