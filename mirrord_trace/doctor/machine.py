"""What this machine and what confines us allow. Everything is tried, as a run would do it; nothing is left behind.

What changes a process (a filter, namespaces, a tracer) is tried in forked children, which end with it. Call these
functions in the main thread, before another is started.
"""

from __future__ import annotations

import errno
import os
import platform
import signal
import socket
from collections.abc import Callable, Iterator

from mirrord_syscalls.abi import Abi, native_abi
from mirrord_syscalls.bpf import RET_ERRNO, compile_filter
from mirrord_syscalls.subscription import Subscription
from mirrord_trace.doctor.findings import Ability, Finding, Verdict
from mirrord_trace.errors import Failure
from mirrord_trace.supervisor.delivery.notify.probe import Unavailable, probe
from mirrord_trace.supervisor.delivery.ptrace import requests
from mirrord_trace.supervisor.launch import Filtering, filter_failure
from mirrord_trace.supervisor.supervision import not_permitted
from mirrord_trace.targets import pod_init
from mirrord_trace.targets.sandbox import SandboxPod
from mirrord_trace.tree import fuse_here

_INTERCEPTION = "System calls"
_FILES = "Files"
_TARGETS = "Targets on this machine"
_SYS_PTRACE, _SYS_ADMIN = 1 << 19, 1 << 21


def interception() -> Iterator[Finding]:
    """Whether calls can be intercepted, and which delivery `--delivery auto` takes."""
    yield Finding(_INTERCEPTION, "kernel", Verdict.KNOWN, f"Linux {platform.release()} on {platform.machine()}")
    try:
        abi = native_abi()
    except LookupError as error:
        yield Finding(_INTERCEPTION, "delivery", Verdict.FAILS, str(error.args[0]), gives=Ability.INTERCEPTION)
        return
    filters = _filters(abi)
    notify = _notify(abi)
    ptrace = _ptrace()
    yield from (filters, notify, ptrace)
    if filters.verdict is Verdict.FAILS:
        chosen = Finding(_INTERCEPTION, "delivery", Verdict.FAILS, "none: both need seccomp filters", filters.advice)
    elif notify.verdict is Verdict.WORKS:
        chosen = Finding(_INTERCEPTION, "delivery", Verdict.WORKS, "auto takes notify")
    elif ptrace.verdict is Verdict.WORKS:
        chosen = Finding(_INTERCEPTION, "delivery", Verdict.LIMITED, "auto takes ptrace, which is slower")
    else:
        chosen = Finding(_INTERCEPTION, "delivery", Verdict.FAILS, "neither notify nor ptrace works", ptrace.advice)
    yield Finding(chosen.group, chosen.name, chosen.verdict, chosen.what, chosen.advice, gives=Ability.INTERCEPTION)


def _filters(abi: Abi) -> Finding:
    filtering = Filtering.of(compile_filter(Subscription.of(["getpgid"]), abi, RET_ERRNO | errno.EPERM))

    def install() -> None:
        filtering.install()

    error = _errno_in_child(install)
    if error:
        failure = filter_failure(error)
        return Finding(_INTERCEPTION, "seccomp filters", Verdict.FAILS, failure.message, failure.advice)
    return Finding(_INTERCEPTION, "seccomp filters", Verdict.WORKS, "a child can install one")


def _notify(abi: Abi) -> Finding:
    try:
        probe(abi)
    except Unavailable as reason:
        return Finding(
            _INTERCEPTION,
            "notify",
            Verdict.LIMITED,
            f"system calls cannot be notified here: {reason}",
            "--delivery ptrace does without, and is slower; debuggers do not work in the command then",
        )
    what = "listeners, descriptors as answers (ADDFD_SEND), pidfd_getfd and process_vm_readv, each tried"
    return Finding(_INTERCEPTION, "notify", Verdict.WORKS, what)


def _ptrace() -> Finding:
    gate_read, gate_write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(gate_write)
        os.read(gate_read, 1)
        os._exit(0)
    try:
        requests.seize(child, 0)
    except PermissionError:
        failure = not_permitted()
        return Finding(_INTERCEPTION, "ptrace", Verdict.LIMITED, failure.message, failure.advice)
    finally:
        os.close(gate_read)
        os.close(gate_write)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return Finding(_INTERCEPTION, "ptrace", Verdict.WORKS, "a child can be traced")


def files() -> Iterator[Finding]:
    """As what the target's files are shown, with `--fs-tree auto`."""
    lacks = fuse_here.missing()
    for lack in lacks:
        yield Finding(_FILES, "FUSE", Verdict.LIMITED, lack.what, lack.how)
    if lacks:
        what = "auto takes copies: files are fetched whole, and cannot be written to at the target"
        yield Finding(_FILES, "tree", Verdict.LIMITED, what)
    else:
        what = "auto takes FUSE; nothing was mounted to try it, and a run that cannot mount takes copies"
        yield Finding(_FILES, "tree", Verdict.WORKS, what)


def local_targets() -> Iterator[Finding]:
    """Which targets on this machine can be had."""
    try:
        with SandboxPod(hostname="doctor"):
            pass
    except Failure as failure:
        yield Finding(_TARGETS, "demo", Verdict.LIMITED, failure.message, failure.advice)
    else:
        what = "its namespaces were made, and are gone again"
        yield Finding(_TARGETS, "demo", Verdict.WORKS, what, gives=Ability.DEMO)
        yield _capture()
    with open("/proc/self/status") as status:
        effective = next(int(line.split()[1], 16) for line in status if line.startswith("CapEff:"))
    if effective & _SYS_ADMIN and effective & _SYS_PTRACE:
        yield Finding(_TARGETS, "pid/PID", Verdict.WORKS, "you may enter namespaces", gives=Ability.PROCESS)
    else:
        what = "only processes in user namespaces of yours can be targets: you have no CAP_SYS_ADMIN and CAP_SYS_PTRACE"
        yield Finding(_TARGETS, "pid/PID", Verdict.LIMITED, what, "--sudo starts the agent, and nothing else, as root")


def _capture() -> Finding:
    def capture() -> None:
        pod_init.enter_namespaces()
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0).close()

    error = _errno_in_child(capture)
    if error:
        what = f"a packet socket cannot be had in namespaces of our own: {os.strerror(error)}"
        return Finding(
            _TARGETS, "mirroring", Verdict.LIMITED, what, "--incoming off does without; the kernel needs CONFIG_PACKET"
        )
    return Finding(_TARGETS, "mirroring", Verdict.WORKS, "a packet socket can be had")


def _errno_in_child(act: Callable[[], None]) -> int:
    """What an action in a forked child fails with, or 0; EPERM for a child that is killed for it."""
    report_read, report_write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            act()
            os.write(report_write, bytes([0]))
        except OSError as error:
            os.write(report_write, bytes([min(error.errno or errno.EIO, 255)]))
        finally:
            os._exit(0)
    os.close(report_write)
    try:
        report = os.read(report_read, 1)
    finally:
        os.close(report_read)
        os.waitpid(child, 0)
    return report[0] if report else errno.EPERM
