"""A node: process 1 of a pid namespace of its own, with its own mounts and host name, that starts containers.

Run as a program, with a socket (SOCK_SEQPACKET) for requests and a pipe as standard input whose end means that the
creator is gone. Two processes, as with the sandbox pods. The outer one makes the namespaces. The inner one is process 1
and forks containers: from an interpreter that is there already, so that one starts in a few milliseconds. Whatever ends
it, the kernel kills all its containers. It does one thing at a time and waits only for what it has just forked. When
the creator or the outer process ends it takes the node's cgroups away; the outer one does where it could not.

cgroup2 is mounted here, for nobody else to see: where a machine has it, and whether at all, does not matter.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
from pathlib import Path

import attrs

from mirrord_trace.targets.pod_init import write

from . import cgroups, channel, kernel, process
from .specification import (
    Answer,
    Container,
    Exited,
    MakeSandbox,
    Processes,
    Remove,
    Request,
    Sandbox,
    Signal,
    StartContainer,
)

_CLEARING_S = 5
"""How long process 1 may take to clear up, before it is killed."""


@attrs.define
class _Running:
    """What has been started under an id: a container, or the process that holds a sandbox."""

    pid: int
    cgroup: Path
    processes: Processes | str
    namespaces: dict[str, int] = attrs.field(factory=dict)
    """A sandbox's, as descriptors."""
    ended: bool = False


class Runtime:
    """Carries requests out, as process 1 of the node."""

    def __init__(self, control: socket.socket, scratch: str, cgroup: Path) -> None:
        self._control = control
        self._scratch = scratch
        self._cgroup = cgroup
        self._running: dict[str, _Running] = {}
        self._own_processes = os.open("/proc/self/ns/pid", os.O_RDONLY)

    def serve(self, holder: int) -> None:
        """Answers requests and tells of ends, until the other end closes or the pipe from the outer process does."""
        ended, wake = socket.socketpair()
        ended.setblocking(False)
        wake.setblocking(False)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        poll = select.poll()
        for readable in (self._control.fileno(), ended.fileno(), holder):
            poll.register(readable, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == ended.fileno():
                    with contextlib.suppress(BlockingIOError):
                        ended.recv(4096)
                    self._reap()
                    continue
                if descriptor == holder:
                    return
                received = channel.receive(self._control)
                if received is None:
                    return
                (number, request), descriptors = received
                self._answer(number, request, descriptors)

    def _answer(self, number: int, request: Request, descriptors: list[int]) -> None:
        returned: list[int] = []
        error = None
        try:
            returned = self._carry_out(request, descriptors)
        except OSError as failure:
            error = str(failure)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        self._say(Answer(number, error), returned)

    def _say(self, message: Answer | Exited, descriptors: list[int]) -> None:
        channel.send(self._control, message, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)

    def _carry_out(self, request: Request, descriptors: list[int]) -> list[int]:
        match request:
            case MakeSandbox(sandbox):
                return [self._make_sandbox(sandbox)]
            case StartContainer(container):
                return [self._start(container, descriptors)]
            case Signal(identity, number):
                running = self._running.get(identity)
                if running is not None and not running.ended:
                    os.kill(running.pid, number)
            case Remove(identity):
                running = self._running.pop(identity, None)
                if running is not None:
                    cgroups.remove(running.cgroup, self._cgroup)
                    if not running.ended:
                        _, status = os.waitpid(running.pid, 0)
                        self._say(Exited(identity, os.waitstatus_to_exitcode(status)), [])
                    for descriptor in running.namespaces.values():
                        os.close(descriptor)
        return []

    def _make_sandbox(self, sandbox: Sandbox) -> int:
        cgroup = cgroups.make(self._cgroup / sandbox.cgroup)
        report, ready = os.pipe()
        pid = self._fork(sandbox.processes)
        if pid == 0:
            _in_child(ready, lambda: process.hold_sandbox(sandbox, str(cgroup), ready))
        os.close(ready)
        self._await(pid, report, cgroup)
        namespaces = {name: os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY) for name in process.POD_NAMESPACES}
        self._running[sandbox.id] = _Running(pid, cgroup, sandbox.processes, namespaces)
        return os.dup(namespaces["net"])

    def _start(self, container: Container, outputs: list[int]) -> int:
        namespaces = self._find(container.sandbox).namespaces
        cgroup = cgroups.make(self._cgroup / container.cgroup)
        report, ready = os.pipe()
        processes = container.sandbox if container.processes is Processes.SANDBOX else container.processes
        pid = self._fork(processes)
        if pid == 0:
            both = (outputs[0], outputs[1])
            _in_child(ready, lambda: process.execute(container, namespaces, str(cgroup), self._scratch, both))
        os.close(ready)
        self._await(pid, report, cgroup)
        self._running[container.id] = _Running(pid, cgroup, processes)
        return os.pidfd_open(pid)

    def _fork(self, processes: Processes | str) -> int:
        """Forks, with the child in that pid namespace."""
        if processes is Processes.NODE:
            return os.fork()
        if processes is Processes.OWN:
            kernel.unshare(kernel.CLONE_NEWPID)
        else:
            assert isinstance(processes, str)
            namespace = os.open(f"/proc/{self._find(processes).pid}/ns/pid", os.O_RDONLY)
            try:
                kernel.setns(namespace, kernel.CLONE_NEWPID)
            finally:
                os.close(namespace)
        pid = -1
        try:
            pid = os.fork()
        finally:
            if pid != 0:
                kernel.setns(self._own_processes, kernel.CLONE_NEWPID)
        return pid

    def _find(self, identity: str) -> _Running:
        running = self._running.get(identity)
        if running is None or running.ended:
            raise ProcessLookupError(f"container {identity} is not running")
        return running

    def _await(self, pid: int, report: int, cgroup: Path) -> None:
        """Waits until a child runs its program. Raises OSError with what it has reported."""
        with open(report, "rb") as reading:
            trouble = reading.read()
        if trouble:
            os.waitpid(pid, 0)
            cgroups.remove(cgroup, self._cgroup)
            raise OSError(trouble.decode())

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for identity, running in self._running.items():
                if running.pid == pid and not running.ended:
                    running.ended = True
                    if running.processes is not Processes.OWN:
                        # Nobody ends with it by itself, as in a pid namespace of its own.
                        cgroups.kill(running.cgroup)
                    self._say(Exited(identity, os.waitstatus_to_exitcode(status)), [])


def _in_child(report: int, become: process.Becoming) -> None:
    try:
        become()
    except OSError as error:
        os.write(report, (str(error) if error.filename is None else f"{error.filename}: {error.strerror}").encode())
    except BaseException as error:
        os.write(report, repr(error).encode())
    finally:
        os._exit(128)


def _be_the_node(control: socket.socket, name: str, scratch: str, cgroup: Path, holder: int) -> None:
    kernel.mount("proc", "/proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC, "proc")
    kernel.checked("sethostname", kernel.libc.sethostname(name.encode(), len(name)))
    write(f"{cgroup}/cgroup.procs", b"0")
    runtime = Runtime(control, scratch, cgroup)
    channel.send(control, Answer(0))
    # Nobody may be there any more to hear an answer.
    with contextlib.suppress(ConnectionError):
        runtime.serve(holder)
    signal.set_wakeup_fd(-1)
    # To outlive what it ends.
    write(f"{cgroup.parent}/cgroup.procs", b"0")
    cgroups.remove_tree(cgroup)


def _hold(control: socket.socket, network: int, name: str, directory: str) -> None:
    """Makes the node's namespaces, starts its process 1, and takes away what does not go by itself."""
    kernel.setns(network, kernel.CLONE_NEWNET)
    os.close(network)
    kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWPID | kernel.CLONE_NEWUTS | kernel.CLONE_NEWIPC)
    kernel.keep_mounts_to_ourselves()
    kernel.mount("node", directory, 0, "tmpfs", "mode=755")
    hierarchy, scratch = f"{directory}/cgroup", f"{directory}/container"
    os.mkdir(hierarchy)
    os.mkdir(scratch)
    kernel.mount("cgroup", hierarchy, kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC, "cgroup2")
    cgroup = Path(hierarchy, cgroups.name_of_node(directory))
    reading, writing = os.pipe()
    try:
        cgroups.make(cgroup)
        pid = os.fork()
        if pid == 0:
            os.close(writing)
            _in_child(2, lambda: _be_the_node(control, name, scratch, cgroup, reading))
        control.close()
        first_process = os.pidfd_open(pid)
        poll = select.poll()
        poll.register(0, select.POLLIN)
        poll.register(first_process, select.POLLIN)
        poll.poll()
        os.close(writing)
        poll.unregister(0)
        poll.poll(_CLEARING_S * 1000)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    finally:
        cgroups.remove_tree(cgroup)


def main() -> None:
    """`runtime CONTROL NETWORK NAME DIRECTORY`: two descriptors, the node's name, an existing directory to mount on."""
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    try:
        _hold(control, int(sys.argv[2]), *sys.argv[3:])
    except OSError as error:
        with contextlib.suppress(OSError):
            channel.send(control, Answer(0, str(error)))


if __name__ == "__main__":
    main()
