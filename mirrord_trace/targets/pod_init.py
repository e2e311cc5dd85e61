"""The first process of a sandbox pod: makes the namespaces, then starts and outlives the pod's programs.

Run as a script (`python -I -S pod_init.py`) with the pod's environment, so that /proc/PID/environ of the pod is that
environment, and with the standard library only, so that it starts in some 30 ms.

Two processes. The outer one unshares and forks; the inner one is process 1 of the pod. Both read the same standard
input: its first line is the specification (JSON), its end means that the creator is gone. Nobody else holds the
writing end, so even kill -9 of the creator ends the pod, and the kernel ends everything in a pid namespace whose
process 1 ends. Process 1 also asks for SIGKILL should the outer process die.

Standard output carries facts back, JSON objects in lines: "pid"; "made" when the programs have been started; "ready"
when each of them has written something; or "error". Standard error is the pod's log.

The root of the pod is a tmpfs whose entries are those of the local root, bind-mounted; the directories in which the
specification places files are treated the same way. So the pod has files of its own and the host's stay untouched.
Mounts that were made before the user namespace are locked, hence always recursive binds (mount_namespaces(7)).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import platform
import select
import signal
import socket
import stat
import struct
from collections.abc import Container
from typing import Any

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_PRIVATE = 2, 4, 8, 16384, 1 << 18
SYS_OPEN_TREE, SYS_MOVE_MOUNT = 428, 429
AT_FDCWD, AT_SYMLINK_NOFOLLOW, AT_RECURSIVE = -100, 0x100, 0x8000
OPEN_TREE_CLONE, MOVE_MOUNT_F_EMPTY_PATH = 1, 4
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_SET_DUMPABLE = 1, 4
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
NETLINK_ROUTE = 0

Specification = dict[str, Any]

libc = ctypes.CDLL(None, use_errno=True)


def checked(operation: str, result: int) -> None:
    """Raise the OSError that a libc function left in errno, naming the operation."""
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{operation}: {os.strerror(number)}")


def mount(source: str, target: str, flags: int, filesystem: str | None = None, options: str | None = None) -> None:
    """mount(2)."""
    arguments = [None if text is None else os.fsencode(text) for text in (source, target, filesystem, options)]
    result = libc.mount(*arguments[:3], ctypes.c_ulong(flags), arguments[3])
    checked(f"mount {filesystem or source} on {target}", result)


def enter_namespaces() -> None:
    """Unshare all of the pod's namespaces, within a user namespace when we may not do so otherwise."""
    namespaces = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET
    if libc.unshare(namespaces) == 0:
        return
    user, group = os.geteuid(), os.getegid()
    checked("unshare (with a user namespace)", libc.unshare(namespaces | CLONE_NEWUSER))
    # The credentials changed, which makes us undumpable and /proc/PID/ns unreadable for the user who owns us.
    libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
    write("/proc/self/setgroups", b"deny")
    write("/proc/self/uid_map", b"0 %d 1" % user)
    write("/proc/self/gid_map", b"0 %d 1" % group)


def copy_of_mounts(path: str) -> int:
    """Copy what is mounted at and below `path`, as a bind mount that is attached nowhere yet: a descriptor of it.

    mount(2) would take the copy later, with what has been mounted over the path by then.
    """
    flags = OPEN_TREE_CLONE | AT_RECURSIVE | AT_SYMLINK_NOFOLLOW | os.O_CLOEXEC
    descriptor: int = libc.syscall(SYS_OPEN_TREE, AT_FDCWD, os.fsencode(path), flags)
    checked(f"open_tree {path}", descriptor)
    return descriptor


def attach(mounts: int, path: str) -> None:
    """Mount what `copy_of_mounts` returned, and close the descriptor."""
    result = libc.syscall(SYS_MOVE_MOUNT, mounts, b"", AT_FDCWD, os.fsencode(path), MOVE_MOUNT_F_EMPTY_PATH)
    checked(f"move_mount to {path}", result)
    os.close(mounts)


def write(path: str, content: bytes) -> None:
    """Write a whole file in one call, as the files of /proc want it. Raises OSError that names the path."""
    with open(path, "wb", buffering=0) as file:
        try:
            written = file.write(content)
        except OSError as error:
            raise OSError(error.errno, f"write {path}: {error.strerror}") from error
    if written != len(content):
        raise OSError(errno.EIO, f"write {path}: {written} of {len(content)} bytes")


def populate(source: str, target: str, leave_out: Container[str]) -> None:
    """Mount a tmpfs on `target` whose entries are those of `source`, which may be the same directory."""
    links: dict[str, str] = {}
    copies: list[tuple[str, bool, int]] = []
    for entry in os.scandir(source):
        if entry.name in leave_out:
            continue
        if entry.is_symlink():
            links[entry.name] = os.readlink(entry.path)
            continue
        # Other people's files come and go.
        with contextlib.suppress(FileNotFoundError):
            copies.append((entry.name, entry.is_dir(), copy_of_mounts(entry.path)))
    mount("pod", target, 0, "tmpfs", f"mode={stat.S_IMODE(os.stat(source).st_mode):o}")
    for name, text in links.items():
        os.symlink(text, os.path.join(target, name))
    for name, is_directory, descriptor in copies:
        path = os.path.join(target, name)
        os.mkdir(path) if is_directory else write(path, b"")
        attach(descriptor, path)


def build_root() -> None:
    """Make the pod's root and move into it. What the local root has is there, except for another /proc."""
    mount("none", "/", MS_REC | MS_PRIVATE)
    local_proc = copy_of_mounts("/proc")
    root = os.path.realpath("/tmp")
    populate("/", root, leave_out={"proc"})
    os.mkdir(root + "/proc")
    try:
        mount("proc", root + "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "proc")
    except PermissionError:
        # A container with a masked /proc may not mount another (mount_namespaces(7)). The local one serves but for
        # the numbers of processes.
        attach(local_proc, root + "/proc")
    else:
        os.close(local_proc)
    os.chdir(root)
    checked("pivot_root", libc.syscall(PIVOT_ROOT[platform.machine()], b".", b"."))
    checked("umount the local root", libc.umount2(b".", MNT_DETACH))
    os.chdir("/")


def place_files(files: dict[str, str]) -> None:
    """Put the pod's own files (contents as Latin-1) into directories of its own."""
    directories: dict[str, dict[str, bytes]] = {}
    for path, text in files.items():
        parent, name = os.path.split(path)
        directories.setdefault(os.path.realpath(parent), {})[name] = text.encode("latin-1")
    own_devices = {os.stat("/").st_dev}
    for directory in sorted(directories):
        contents = directories[directory]
        existing = directory
        while not os.path.isdir(existing):
            existing = os.path.dirname(existing)
        if os.stat(existing).st_dev not in own_devices:
            populate(existing, existing, leave_out=contents if existing == directory else ())
            own_devices.add(os.stat(existing).st_dev)
        os.makedirs(directory, exist_ok=True)
        for name, content in contents.items():
            write(os.path.join(directory, name), content)


def configure_network(requests: list[str]) -> None:
    """Carry out ready-made routing-netlink requests (Latin-1), each of which asks for an acknowledgement."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_ROUTE) as netlink:
        for number, request in enumerate(requests):
            netlink.send(request.encode("latin-1"))
            # struct nlmsgerr: a negative errno after the header of 16 bytes.
            (error,) = struct.unpack_from("=i", netlink.recv(65536), 16)
            if error:
                raise OSError(-error, f"network request {number}: {os.strerror(-error)}")


def start_program(argv: list[str]) -> int:
    """Start a program of the pod and return the reading end of its standard output."""
    reading, writing = os.pipe()
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, writing, 1),
    ]
    every_default = [signal.SIGINT, signal.SIGPIPE, signal.SIGCHLD, signal.SIGXFSZ]
    os.posix_spawnp(argv[0], argv, os.environ, file_actions=actions, setsigmask=(), setsigdef=every_default)
    os.close(writing)
    return reading


def report(**message: object) -> None:
    """Tell the creator something: one line of JSON, short enough for a pipe to keep it whole."""
    os.write(1, json.dumps(message).encode() + b"\n")


def run_pod(specification: Specification) -> None:
    """Be process 1 of the pod: set it up, start its programs, wait for the creator to go."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    socket.sethostname(specification["hostname"])
    build_root()
    place_files(specification["files"])
    for path, value in specification["sysctls"].items():
        write(path, value.encode())
    configure_network(specification["network"])

    # Children are reaped by the kernel.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    programs = {start_program(argv): " ".join(argv)[:200] for argv in specification["programs"]}
    report(made=True)
    unready = set(programs)
    if not unready:
        report(ready=True)
    poll = select.poll()
    for descriptor in (0, *programs):
        poll.register(descriptor, select.POLLIN)
    while True:
        for descriptor, _ in poll.poll():
            output = os.read(descriptor, 65536)
            if descriptor == 0:
                if not output:
                    return
                continue
            os.write(2, output or f"{programs[descriptor]}: ended\n".encode())
            if not output:
                poll.unregister(descriptor)
                os.close(descriptor)
            if descriptor in unready:
                if not output:
                    report(error=f"{programs[descriptor]}: ended before it was ready")
                unready.remove(descriptor)
                if not unready:
                    report(ready=True)


def main() -> int:
    """Run a pod and return the exit status of its first process."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    line = b""
    while not line.endswith(b"\n"):
        chunk = os.read(0, 65536)
        if not chunk:
            return 1
        line += chunk
    try:
        enter_namespaces()
        pid = os.fork()
        if pid == 0:
            run_pod(json.loads(line))
            return 0
    except OSError as error:
        report(error=str(error), forbidden=isinstance(error, PermissionError))
        return 1
    report(pid=pid)
    first_process = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(0, select.POLLIN)
    poll.register(first_process, select.POLLIN)
    while all(descriptor != first_process for descriptor, _ in poll.poll()):
        os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    # Process 1 and its parent hold nothing that needs an orderly end, and the interpreter's takes 5 ms.
    os._exit(main() & 0xFF)
