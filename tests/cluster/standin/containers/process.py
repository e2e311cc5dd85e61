"""A container's first process, from the fork to its program: the child's half.

The runtime has already set which pid namespace the fork is born into. What fails here is written to a pipe that the
program's start closes, as a sentence for people.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping

from mirrord_trace.targets.pod_init import write

from . import kernel, network, root
from .specification import Container, Sandbox

Becoming = Callable[[], None]
"""What a forked child turns into; it does not return unless that fails."""

POD_NAMESPACES = {"net": kernel.CLONE_NEWNET, "uts": kernel.CLONE_NEWUTS, "ipc": kernel.CLONE_NEWIPC}
"""What the containers of a pod share, by its name below /proc/PID/ns."""


def hold_sandbox(sandbox: Sandbox, cgroup: str, ready: int) -> None:
    """Be the process that holds a pod's namespaces, as the pause container is; `ready` is the pipe to report on."""
    write(f"{cgroup}/cgroup.procs", b"0")
    signal.set_wakeup_fd(-1)
    kernel.unshare(kernel.CLONE_NEWUTS | kernel.CLONE_NEWIPC)
    kernel.checked("sethostname", kernel.libc.sethostname(sandbox.hostname.encode(), len(sandbox.hostname)))
    if sandbox.network is not None:
        network.join(sandbox.network)
    kernel.name_process("pause")
    # Where it is process 1 of the pod's processes it has their orphans; the kernel reaps them.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    os.setsid()
    os.close(ready)
    while True:
        signal.pause()


def execute(
    container: Container, namespaces: Mapping[str, int], cgroup: str, scratch: str, outputs: tuple[int, int]
) -> None:
    """Become the container's program. Returns never; raises OSError.

    `namespaces`: descriptors of the pod's; `cgroup`: the path of its own; `outputs`: standard output and error.
    """
    write(f"{cgroup}/cgroup.procs", b"0")
    for name, kind in POD_NAMESPACES.items():
        kernel.setns(namespaces[name], kind)
    kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWCGROUP)
    root.build(container, scratch)
    os.makedirs(container.directory, 0o755, exist_ok=True)
    os.chdir(container.directory)
    null = os.open("/dev/null", os.O_RDONLY)
    for descriptor, standard in ((null, 0), (outputs[0], 1), (outputs[1], 2)):
        os.dup2(descriptor, standard)
    os.setsid()
    _become_user(container)
    _restore_signals()
    program = container.arguments[0]
    try:
        os.execvpe(program, container.arguments, container.environment)
    except FileNotFoundError:
        where = "no such file or directory" if "/" in program else "executable file not found in $PATH"
        raise OSError(f'exec: "{program}": {where}') from None
    except PermissionError:
        raise OSError(f'exec: "{program}": permission denied') from None


def _become_user(container: Container) -> None:
    if not container.privileged:
        kernel.limit_capabilities(container.capabilities)
    if container.no_new_privileges:
        kernel.give_up_new_privileges()
    os.setgroups(container.groups)
    os.setgid(container.group)
    os.setuid(container.user)


def _restore_signals() -> None:
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
