"""Families of processes made for the purpose, told by /proc."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import threading

import pytest

from mirrord_syscalls.abi import native_abi
from mirrord_trace.supervisor import descent


def shell(script: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def end(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    process.wait(10)
    assert process.stdout is not None
    process.stdout.close()


NESTED = "sh -c 'cat & sh -c \"cat & echo ready; wait\" & wait' & wait"


@pytest.mark.parametrize("has_children_files", [True, False])
def test_children_and_descendants(has_children_files: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_children_files:  # as on a kernel without CONFIG_PROC_CHILDREN
        real_open = open

        def without(path: str, mode: str = "r") -> object:
            if path.endswith("/children"):
                raise FileNotFoundError(path)
            return real_open(path, mode)

        monkeypatch.setattr(descent, "open", without, raising=False)
    process = shell(f"exec 3<&0; {NESTED.replace('cat', 'cat <&3')}")
    try:
        assert len(descent.children_of(process.pid)) == 1
        found = descent.descendants_of(process.pid)
        assert len(found) == 4  # two shells, and two that are, or will be, cat
        assert found[0] == descent.children_of(process.pid)[0]
        assert process.pid in descent.children_of(os.getpid())
    finally:
        end(process)
    assert descent.children_of(process.pid) == []


def test_children_of_other_threads_count() -> None:
    started: list[subprocess.Popen[str]] = []
    begun, done = threading.Event(), threading.Event()

    def start() -> None:
        started.append(shell("echo ready; read word"))
        begun.set()
        done.wait()

    thread = threading.Thread(target=start)
    thread.start()
    begun.wait()
    try:
        assert started[0].pid in descent.children_of(os.getpid())
    finally:
        done.set()
        thread.join()
        end(started[0])


def test_living_task_of_a_single_thread_is_itself() -> None:
    assert descent.living_task_of(os.getpid()) == os.getpid()


def test_where_the_first_thread_has_ended_another_is_named() -> None:
    """Its descriptors are still there; the first thread's are not."""
    ready_read, ready_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        threading.Thread(target=lambda: os.write(ready_write, b"r") and threading.Event().wait()).start()
        os.read(ready_read, 1)
        os.write(ready_write, b"l")
        ctypes.CDLL(None).syscall(native_abi().numbers["exit"], 0)  # this thread, not the process
    try:
        with open(f"/proc/{pid}/stat") as stat:
            while stat.read().rpartition(") ")[2][:1] != "Z":
                os.sched_yield()
                stat.seek(0)
        task = descent.living_task_of(pid)
        assert task != pid
        assert os.listdir(f"/proc/{task}/fd")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(ready_read)
        os.close(ready_write)


def test_who_is_ending() -> None:
    """Whether or not anybody has asked how it ended."""
    process = shell("echo ready; cat")
    assert not descent.is_ending(process.pid)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert descent.is_ending(process.pid)
    end(process)
    assert descent.is_ending(process.pid)


def test_of_whom_nothing_can_be_told_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> object:
        raise PermissionError

    monkeypatch.setattr("builtins.open", refuse)
    assert not descent.is_ending(os.getpid())
