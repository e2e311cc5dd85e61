"""A container's file system: what containerd mounts, with the options that it gives (oci/mounts.go, oci/spec.go).

The image's root is the lower layer of an overlay whose upper one is in memory. All is mounted in the container's own
mount namespace, so the kernel takes it away with the last process, however that ended.
"""

from __future__ import annotations

import contextlib
import os
import stat

from mirrord_trace.targets.pod_init import MNT_DETACH, PIVOT_ROOT, write

from . import kernel
from .specification import Container

_NO_SURPRISES = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
_SYS_PIVOT_ROOT = PIVOT_ROOT[os.uname().machine]
_DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
_DEVICE_LINKS = {
    "ptmx": "pts/ptmx",
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
}
_MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
)
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def build(container: Container, scratch: str) -> None:
    """Mounts the container's file system and moves into it; `scratch` is an empty directory to mount on.

    Nothing is done below the root's path before it is the root: links in the image are meant to be followed there.
    """
    os.umask(0)
    kernel.mount("standin", scratch, 0, "tmpfs", "mode=755")
    upper, work, root = (f"{scratch}/{name}" for name in ("upper", "work", "root"))
    for directory in (upper, work, root):
        os.mkdir(directory, 0o755)
    layers = f"lowerdir={_escaped(container.root)},upperdir={_escaped(upper)},workdir={_escaped(work)}"
    kernel.mount("overlay", root, 0, "overlay", layers)
    volumes = [(volume, os.path.isdir(volume.source), kernel.tree(volume.source)) for volume in container.mounts]
    _enter(root)
    _mount_kernel_files(privileged=container.privileged)
    for path, content in container.files.items():
        _place(path, content)
    for volume, is_directory, tree in volumes:
        if is_directory:
            os.makedirs(volume.target, 0o755, exist_ok=True)
        elif not os.path.exists(volume.target):
            _place(volume.target, b"")
        kernel.attach_tree(tree, volume.target, read_only=volume.read_only)
    if not container.privileged:
        _hide()
    if container.read_only_root:
        kernel.mount("none", "/", kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY)
    os.umask(0o022)


def _place(path: str, content: bytes) -> None:
    os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
    if os.path.islink(path):
        os.unlink(path)
    write(path, content)
    os.chmod(path, 0o755 if content.startswith(b"#!") else 0o644)


def _escaped(path: str) -> str:
    """Overlay's options have backslash, comma and colon for themselves."""
    return path.replace("\\", "\\\\").replace(",", "\\,").replace(":", "\\:")


def _mount_kernel_files(*, privileged: bool) -> None:
    for name in ("proc", "dev", "sys"):
        os.makedirs(f"/{name}", 0o755, exist_ok=True)
    kernel.mount("proc", "/proc", _NO_SURPRISES, "proc")
    kernel.mount("tmpfs", "/dev", kernel.MS_NOSUID, "tmpfs", "mode=755,size=65536k")
    for name, (major, minor) in _DEVICES.items():
        os.mknod(f"/dev/{name}", stat.S_IFCHR | 0o666, os.makedev(major, minor))
    for name, target in _DEVICE_LINKS.items():
        os.symlink(target, f"/dev/{name}")
    for name in ("pts", "shm", "mqueue"):
        os.mkdir(f"/dev/{name}", 0o755)
    kernel.mount(
        "devpts",
        "/dev/pts",
        kernel.MS_NOSUID | kernel.MS_NOEXEC,
        "devpts",
        "newinstance,ptmxmode=0666,mode=0620,gid=5",
    )
    kernel.mount("shm", "/dev/shm", _NO_SURPRISES, "tmpfs", "mode=1777,size=65536k")
    kernel.mount("mqueue", "/dev/mqueue", _NO_SURPRISES, "mqueue")
    read_only = 0 if privileged else kernel.MS_RDONLY
    kernel.mount("sysfs", "/sys", _NO_SURPRISES | read_only, "sysfs")
    kernel.mount("cgroup", "/sys/fs/cgroup", _NO_SURPRISES | read_only, "cgroup2")


def _enter(root: str) -> None:
    os.chdir(root)
    kernel.checked("pivot_root", kernel.libc.syscall(_SYS_PIVOT_ROOT, b".", b"."))
    kernel.checked("umount the node's root", kernel.libc.umount2(b".", MNT_DETACH))
    os.chdir("/")


def _hide() -> None:
    for path in _READ_ONLY:
        with contextlib.suppress(FileNotFoundError):
            kernel.bind(path, path, read_only=True)
    for path in _MASKED:
        if os.path.isdir(path):
            kernel.mount("tmpfs", path, kernel.MS_RDONLY, "tmpfs", "size=0k")
        elif os.path.exists(path):
            kernel.bind("/dev/null", path)
