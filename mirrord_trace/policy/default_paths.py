"""Which files are whose when nobody has said it: lists of places and names, and what is local on this very machine.

The lists are mirrord's (3.250): a program runs here, so what it is made of is here (libraries, interpreters and their
packages, this machine's directories, the directory in which the user works), while what the target's world consists of
is there. Trees match by whole components: `/homework` is not in `/home`. Names match without regard to case, as
mirrord's do; trees are places on this machine and match exactly.

What the target has mounted is its own, wherever it is mounted: volumes, secrets, configuration. Mounts that make a
system of a container rather than a world (/proc, /dev, /tmp) are not meant, nor those over a place that this machine
needs for itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Protocol

import attrs

from mirrord_trace.policy.paths import ancestors, below

LOCAL_TREES: Final = frozenset(
    b"/proc /sys /lib /lib32 /lib64 /libx32 /libo32 /libexec /etc /usr /home /bin /sbin /dev /opt /tmp /var/tmp /snap "
    b"/run /selinux /nix".split()
)
"""This machine's, with all that is below; `/` itself is, too, but not what is below."""
_LOCAL_ENDINGS: Final = tuple(
    b".so .sh .rb .d .pyc .py .jar .class .js .pth .plist .pdb .dll venv.cfg /jvm.cfg /package.json "
    b"/.tool-versions".split()
)
_LOCAL_BEGINNINGS: Final = (b"node_modules", b"clr-")
"""Of those without a dot, in lower case."""
_MODULES: Final = b"/node_modules/"
_VERSIONS: Final = b"/.asdf/"
_LOCAL_LAST_COMPONENT: Final = re.compile(rb".* \.so (?:\.\d+)+ \Z | \.yarnrc | clr-.*-pipe-", re.VERBOSE | re.DOTALL)
LOADER_FILES: Final = re.compile(
    rb"""
      / (?: usr/ (?:local/)? | nix/store/ [^/]+ / )? lib (?:32|64|x32|o32)? /
      (?: \w+-linux-\w+ / )? (?: glibc-hwcaps / [^/]+ / )? [^/]+ \.so (?:\.\d+)* \Z
    | /etc/ld ( \.so\.(?:cache|preload) | -musl-\w+\.path ) \Z
    """,
    re.VERBOSE | re.DOTALL,
)
"""What ld.so(8) reads before a program runs. Another system's would not fit the loader that the kernel has chosen."""
LIBRARY: Final = re.compile(
    rb"((/.*?) (?:/lib(?:32|64|x32|o32)?)? ) / [^/]+ \.so (?:\.\d+)* \Z", re.VERBOSE | re.DOTALL
)
"""A library: its directory, and that without a last `lib`."""
REMOTE_TREES: Final = frozenset((b"/etc/resolv.conf", b"/etc/hosts", b"/etc/hostname", b"/etc/ssl/certs"))
"""Read at the target although this machine's /etc is local."""
NOT_FOUND_AT_HOME: Final = (b".config/gcloud", b".kube", b".azure")
"""Below the home directory: the user's own credentials, with which the target would not act."""

_SHARED_DIRECTORIES: Final = frozenset((*LOCAL_TREES, b"/usr/bin", b"/usr/sbin", b"/usr/local", b"/usr/local/bin"))
"""Where programs of all sorts are, so that the place tells nothing of one."""
_OF_THE_SYSTEM: Final = frozenset(
    b"autofs bdev binfmt_misc bpf cgroup cgroup2 configfs cpuset debugfs devpts devtmpfs efivarfs fusectl hugetlbfs "
    b"mqueue nsfs pstore proc resctrl rpc_pipefs securityfs selinuxfs sysfs tracefs fuse.lxcfs "
    b"fuse.mirrord-trace".split()
)
"""Filesystem types that show a kernel, not a world."""
_NEVER_MOUNTED: Final = frozenset((b"/proc", b"/sys", b"/dev"))
_OF_USERS: Final = frozenset((b"/etc/passwd", b"/etc/group", b"/etc/shadow", b"/etc/gshadow"))
"""The process's user stays this machine's; some container runtimes mount files of their own there."""
_OF_PROGRAMS: Final = frozenset(
    b"/bin /sbin /lib /lib32 /lib64 /libx32 /usr/bin /usr/sbin /usr/lib /usr/lib32 /usr/lib64 /usr/libexec "
    b"/usr/local/bin /usr/local/lib".split()
)
"""Single files mounted below are put there by a container runtime: drivers, with their programs and libraries."""


@attrs.frozen(kw_only=True)
class Surroundings:
    """Places of this machine that a run needs as they are. Paths are absolute and normalised; b"" is none."""

    working_directory: bytes
    home: bytes
    executable: bytes
    """The program that is started, as it was found."""
    temporary: bytes
    """Where the process will put temporary files: $TMPDIR."""
    search_path: tuple[bytes, ...] = ()
    """Where programs, libraries and packages are searched: the members of $PATH, $PYTHONPATH, $JAVA_HOME, ..."""
    other_names: tuple[bytes, ...] = ()
    """More names of these directories: $PWD where it leads through links, the real $TMPDIR."""
    programs: tuple[bytes, ...] = ()
    """What is executed with the executable: itself with links resolved, a script's interpreter."""

    @property
    def local_trees(self) -> frozenset[bytes]:
        """Directories that are local with all that is below. The root is never one."""
        places = (self.working_directory, self.temporary, *self.search_path, *self.other_names)
        return frozenset(place for place in places if place not in (b"", b"/"))

    @property
    def not_found(self) -> frozenset[bytes]:
        """Trees of the home directory that do not exist for the process."""
        return frozenset(below(self.home, name) for name in NOT_FOUND_AT_HOME) if self.home else frozenset()

    @property
    def hidden_at_home(self) -> bytes | None:
        """What the paths of the home directory's hidden files begin with."""
        return below(self.home, b".") if self.home else None


def is_plain_name(name: bytes) -> bool:
    """Whether nothing in a directory's entry's name can make it this machine's; False if it is no such name."""
    return bool(name) and b"." not in name and b"/" not in name and not name.lower().startswith(_LOCAL_BEGINNINGS)


def has_local_name(path: bytes) -> bool:
    """Whether a path is this machine's because of a name in it: that of a part of programs, whatever the directory."""
    path = path.lower()
    if path.endswith(_LOCAL_ENDINGS) or _LOCAL_LAST_COMPONENT.match(path, path.rfind(b"/") + 1):
        return True
    path += b"/"
    return _MODULES in path or _VERSIONS in path


def installation(program: bytes) -> tuple[bytes, ...]:
    """The directories that belong to a program, given by its normalised path: its own, and of `x/bin/program` also `x`.

    Not those directly below the root nor those that programs share: where many things are, nothing belongs to one.
    """
    directory = program[: program.rfind(b"/")]
    candidates = [directory]
    if directory.endswith((b"/bin", b"/sbin")):
        candidates.append(directory[: directory.rfind(b"/")])
    return tuple(place for place in candidates if place.count(b"/") > 1 and place not in _SHARED_DIRECTORIES)


class Mounted(Protocol):
    """A mount of the target, as its /proc/PID/mountinfo says (proc_pid_mountinfo(5))."""

    @property
    def path(self) -> bytes:
        """Where it is, absolute, below the target's root."""

    @property
    def type(self) -> bytes:
        """The filesystem's type, `fuse.x` with its subtype."""

    @property
    def is_directory(self) -> bool:
        """False for a single file."""


def mounted_paths(mounts: Sequence[Mounted], surroundings: Surroundings) -> tuple[bytes, ...]:
    """Those of the target's mounts that are read at the target by default, all that is below included.

    What is in /run is in /var/run, too, under which name pods know their secrets.
    """
    paths: dict[bytes, None] = {}
    needed = {
        surroundings.executable,
        surroundings.home,
        *surroundings.programs,
        *surroundings.local_trees,
    } - {b"", b"/"}
    needed_by_mounts = {ancestor for place in needed for ancestor in ancestors(place)}
    for mount in mounts:
        if _is_volume(mount) and mount.path not in needed_by_mounts:
            paths[mount.path] = None
            if mount.path.startswith(b"/run/"):
                paths[b"/var" + mount.path] = None
    return tuple(paths)


def _is_volume(mount: Mounted) -> bool:
    path = mount.path
    if path == b"/" or path in LOCAL_TREES or path in _OF_USERS or mount.type in _OF_THE_SYSTEM:
        return False
    above = ancestors(path)
    return _NEVER_MOUNTED.isdisjoint(above) and (mount.is_directory or _OF_PROGRAMS.isdisjoint(above))
