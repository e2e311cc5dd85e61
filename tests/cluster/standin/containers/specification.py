"""What the kubelet asks of a node's container runtime, and what it answers: values, sent pickled from end to end.

Both ends are of the same source and start together, so the form on the wire needs no versions.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

import attrs

from .network import PodNetwork

DEFAULT_CAPABILITIES = frozenset(
    [
        "CHOWN",
        "DAC_OVERRIDE",
        "FSETID",
        "FOWNER",
        "MKNOD",
        "NET_RAW",
        "SETGID",
        "SETUID",
        "SETFCAP",
        "SETPCAP",
        "NET_BIND_SERVICE",
        "SYS_CHROOT",
        "KILL",
        "AUDIT_WRITE",
    ]
)
"""What containerd gives a container that asks for nothing (containerd, oci/spec.go, defaultUnixCaps)."""


class Processes(enum.Enum):
    """Whose pid namespace a container's processes are in."""

    OWN = "own"
    NODE = "node"
    SANDBOX = "sandbox"
    """The pod's (shareProcessNamespace)."""


@attrs.frozen
class Sandbox:
    """What the containers of a pod share: host name, network, and a process that holds them."""

    id: str
    """64 hexadecimal digits, as containerd's."""
    cgroup: str
    """Below the node's, such as "kubepods.slice/…/cri-containerd-ID.scope"."""
    hostname: str
    network: PodNetwork | None
    """None for the node's."""
    processes: Processes = Processes.OWN


@attrs.frozen
class Mount:
    """A directory or file of the node that shows in a container."""

    source: str
    target: str
    read_only: bool = False


@attrs.frozen
class Container:
    """One process to start, with a root, a cgroup and capabilities of its own."""

    id: str
    sandbox: str
    cgroup: str
    root: str
    """A directory of the machine: it is only read, what the container writes goes to memory."""
    arguments: tuple[str, ...]
    files: Mapping[str, bytes] = attrs.field(factory=dict)
    """What the image has besides `root`."""
    mounts: tuple[Mount, ...] = ()
    environment: Mapping[str, str] = attrs.field(factory=dict)
    directory: str = "/"
    user: int = 0
    group: int = 0
    groups: tuple[int, ...] = ()
    capabilities: frozenset[str] = DEFAULT_CAPABILITIES
    privileged: bool = False
    """All capabilities, and nothing of /proc and /sys masked."""
    no_new_privileges: bool = False
    read_only_root: bool = False
    processes: Processes | str = Processes.OWN
    """Or the id of the container whose pid namespace it joins."""


@attrs.frozen
class MakeSandbox:
    """Answered with a descriptor of the sandbox's network namespace."""

    sandbox: Sandbox


@attrs.frozen
class StartContainer:
    """Comes with descriptors for standard output and error; answered, once the program runs, with its pidfd."""

    container: Container


@attrs.frozen
class Signal:
    """A signal for a container's first process; nothing happens if that has ended."""

    id: str
    signal: int


@attrs.frozen
class Remove:
    """Ends what is left of a container, or of a sandbox, and takes away its cgroup."""

    id: str


Request = MakeSandbox | StartContainer | Signal | Remove


@attrs.frozen
class Answer:
    """To the request of that number."""

    number: int
    error: str | None = None


@attrs.frozen
class Exited:
    """The first process of a container has ended."""

    id: str
    status: int
    """As `os.waitstatus_to_exitcode`: an exit code, or the negative number of a signal."""
