"""What is found out about the surroundings, and what follows from it; each in surroundings that are made so."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.mirrord_trace.supervisor.harness import HERE, ROOT, UNPRIVILEGED

CHOOSE = """if 1:
    import sys
    from mirrord_syscalls.abi import native_abi
    from mirrord_trace.errors import Failure
    from mirrord_trace.supervisor.delivery.choice import choose
    try:
        load = choose(sys.argv[1], native_abi(), print)
    except Failure as failure:
        sys.exit(f"{failure.message} / {failure.advice}")
    print(load().func.__name__)
"""


def choose(wanted: str, *denied: str, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    deny = [word for what in denied for word in (sys.executable, str(HERE / "deny.py"), what)]
    command = [*prefix, *deny, sys.executable, "-c", CHOOSE, wanted]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=30)


@pytest.mark.parametrize("prefix", [(), tuple(UNPRIVILEGED)], ids=["root", "user"])
def test_notify_is_chosen_where_it_works(prefix: tuple[str, ...]) -> None:
    done = choose("auto", prefix=prefix)
    assert done.stdout.splitlines() == ["delivery: notify, which was tried and works", "NotifyDelivery"]


@pytest.mark.parametrize("denied", ["WAIT_KILLABLE_RECV", "SYNC_WAKE_UP", "ptrace"])
def test_notify_works_without(denied: str) -> None:
    assert choose("auto", denied).stdout.splitlines()[-1] == "NotifyDelivery"


REASONS = {
    "pidfd_getfd": "descriptors of a child cannot be duplicated (pidfd_getfd(2): Operation not permitted)",
    "process_vm_readv": "the memory of a child cannot be read (process_vm_readv(2))",
    "NEW_LISTENER": "the kernel knows no seccomp listeners",
    "listener": "this process has a seccomp listener already",
    "seccomp": "seccomp(2) with a listener fails: Operation not permitted",
}


@pytest.mark.parametrize("denied", REASONS)
def test_ptrace_is_chosen_where_notify_lacks_something(denied: str) -> None:
    said, chosen = choose("auto", denied).stdout.splitlines()
    assert chosen == "PtraceDelivery"
    assert said.startswith("delivery: ptrace, because notify is not to be had here: ")
    assert REASONS[denied] in said


def test_notify_that_is_asked_for_and_not_to_be_had_is_a_failure() -> None:
    done = choose("notify", "pidfd_getfd")
    assert done.returncode == 1
    assert done.stderr.startswith("system calls cannot be notified here: descriptors of a child cannot be duplicated")
    assert "--delivery ptrace" in done.stderr


@pytest.mark.parametrize("wanted", ["notify", "ptrace"])
def test_what_is_asked_for_is_taken(wanted: str) -> None:
    chosen = {"notify": "NotifyDelivery", "ptrace": "PtraceDelivery"}[wanted]
    assert choose(wanted).stdout.splitlines() == [f"delivery: {wanted}, as asked for", chosen]
