"""The ways in which a program is run: natively, under the tool, under others that intercept the same calls.

A way that this machine lacks is not left out silently: it is tried once with /bin/true, and what it lacks is reported
with the results.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Final, cast

import attrs

from benchmarks import building, processes
from benchmarks.errors import MeasurementFailed, Unavailable
from benchmarks.figures import NATIVE
from benchmarks.processes import Command
from mirrord_syscalls.abi import native_abi
from mirrord_syscalls.bpf import RET_USER_NOTIF, compile_filter
from mirrord_syscalls.subscription import Subscription
from mirrord_trace.config import FilesConfiguration
from mirrord_trace.policy.default_paths import Surroundings
from mirrord_trace.policy.files import FilesPolicy
from mirrord_trace.supervisor.delivery.base import Handlers
from mirrord_trace.supervisor.delivery.notify.executions import EXECUTING_CALLS
from mirrord_trace.supervisor.handlers.datagrams import DatagramHandlers
from mirrord_trace.supervisor.handlers.files import FileHandlers
from mirrord_trace.supervisor.handlers.names import NameHandlers
from mirrord_trace.supervisor.handlers.sockets import SocketHandlers
from mirrord_trace.supervisor.handlers.streams import StreamHandlers
from mirrord_trace.supervisor.socket_table import SocketTable
from mirrord_trace.tree.base import Tree

NOTIFY: Final = "notify"
PTRACE: Final = "ptrace"
STRACE: Final = "strace"
PROOT: Final = "PRoot"
FLOOR: Final = "C floor"
SSH: Final = "ssh -D"
DELIVERIES: Final = (NOTIFY, PTRACE)
ALL: Final = (NATIVE, FLOOR, NOTIFY, PTRACE, STRACE, PROOT)

_TRIAL_TIMEOUT_S: Final = 20.0


@attrs.frozen
class Way:
    """How to run a command so that its calls are intercepted in one way."""

    name: str
    prefix: tuple[str, ...] = ()
    """What goes before the command."""
    version: str = ""

    def command(self, program: Command) -> list[str]:
        """The command line."""
        return [*self.prefix, *map(str, program)]


@attrs.frozen
class Ways:
    """Those that work here, in the order of `ALL`, and why the others do not."""

    available: Mapping[str, Way]
    missing: Mapping[str, str]

    def some(self, *names: str) -> list[Way]:
        """Those of them that work here."""
        return [self.available[name] for name in names if name in self.available]

    def missing_of(self, *names: str) -> dict[str, str]:
        """Why the others of them are not there."""
        return {name: self.missing[name] for name in names if name in self.missing}


def subscription() -> Subscription:
    """The calls that mirrord-trace stops with notify: asked of the handlers, which are never called here."""
    sockets = SocketHandlers(SocketTable(), cast("StreamHandlers", None), cast("DatagramHandlers", None))
    nowhere = Surroundings(working_directory=b"/", home=b"", executable=b"", temporary=b"")
    policy = FilesPolicy.of(FilesConfiguration(), nowhere, ())
    files = FileHandlers(policy, {}, cast("Tree", SimpleNamespace(root=b"/tree")))
    handlers = Handlers.of(
        *sockets.interests(), *NameHandlers(b"", b"").interests(), *files.interests(native_abi().numbers)
    )
    return handlers.subscription | Subscription.of(EXECUTING_CALLS)


def find_ways(pod: int) -> Ways:
    """Try every way. `pod`: a process of the pod that the tool targets."""
    makers: dict[str, Callable[[], Way]] = {
        NATIVE: lambda: Way(NATIVE),
        FLOOR: _floor,
        NOTIFY: lambda: tool(NOTIFY, pod),
        PTRACE: lambda: tool(PTRACE, pod),
        STRACE: _strace,
        PROOT: _proot,
    }
    available, missing = {}, {}
    for name in ALL:
        try:
            way = makers[name]()
            processes.run(way.command(["/bin/true"]), _TRIAL_TIMEOUT_S)
            available[name] = way
        except (Unavailable, MeasurementFailed) as error:
            missing[name] = str(error)
    return Ways(available, missing)


def tool(delivery: str, pod: int, *options: str) -> Way:
    """mirrord-trace itself. `pod`: a process of its target. Raises Unavailable."""
    command = Path(sys.executable).with_name("mirrord-trace")
    if not command.exists():
        raise Unavailable(f"no {command}: make venv")
    prefix = (str(command), "run", "--quiet", "--target", f"pid/{pod}", "--delivery", delivery, *options, "--")
    return Way(delivery, prefix)


def _floor() -> Way:
    filter_file = building.OUTPUT / "filter.bpf"
    filter_file.parent.mkdir(parents=True, exist_ok=True)
    filter_file.write_bytes(compile_filter(subscription(), native_abi(), RET_USER_NOTIF))
    return Way(FLOOR, (str(building.program("notify_floor")), str(filter_file)))


def _strace() -> Way:
    strace = _found("strace")
    # The question mark: an older strace need not know every call.
    names = ",".join(f"?{name}" for name in sorted({rule.call for rule in subscription().rules}))
    prefix = (strace, "-f", "--seccomp-bpf", "-e", f"trace={names}", "-o", "/dev/null")
    return Way(STRACE, prefix, _first_line([strace, "--version"]))


def _proot() -> Way:
    proot = _found("proot")
    banner = processes.run([proot, "--version"], _TRIAL_TIMEOUT_S)
    facts = re.findall(r"\d+\.\d[\d.]*|seccomp_filter = \w+", banner)
    return Way(PROOT, (proot,), f"PRoot {', '.join(facts)}")


def _found(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise Unavailable(f"not installed: apt-get install {name}")
    return found


def _first_line(command: Command) -> str:
    return processes.run(command, _TRIAL_TIMEOUT_S).partition("\n")[0]
