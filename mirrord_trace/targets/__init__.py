"""What a process can be run in, one module per kind of target."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mirrord_trace.errors import UsageFailure

if TYPE_CHECKING:
    from mirrord_trace.targets.base import Target

_ACCEPTED = "A target is `demo`, a small pod made for the occasion, or `pid/PID`, a process on this machine."


def parse_target(text: str, *, sudo: bool = False) -> Target:
    """The target that a user names, such as "demo" or "pid/4711".

    With `sudo` the agent is started through sudo where it is started on this machine. Raises `UsageFailure`.
    """
    kind, _, rest = text.partition("/")
    if kind == "pid":
        # Not str.isdecimal alone, which is true for digits of all scripts.
        if not (rest.isascii() and rest.isdecimal() and int(rest) > 0):
            raise UsageFailure(f"target {text!r}: {rest!r} is no process id", _ACCEPTED)
        from mirrord_trace.targets.pid import ProcessTarget

        return ProcessTarget(int(rest), sudo=sudo)
    if text == "demo":
        from mirrord_trace.targets.demo import DemoTarget

        return DemoTarget()
    raise UsageFailure(f"unknown target {text!r}", _ACCEPTED)
