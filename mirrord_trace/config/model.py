"""The configuration as attrs classes.

Field names and defaults follow mirrord's where both have the field (`feature.env`, `feature.network.outgoing`).
"""

import re
from typing import Literal

import attrs

Delivery = Literal["auto", "notify", "ptrace"]


@attrs.frozen
class EnvironmentConfiguration:
    """Which of the target's environment variables the process gets. Patterns know `*` and `?`."""

    enabled: bool = True
    """False: the process keeps the local environment as it is."""
    include: tuple[str, ...] = ()
    """Only variables that match one of these; none given means all."""
    exclude: tuple[str, ...] = ()
    """All but those that match one of these. Cannot be combined with `include`."""

    def __attrs_post_init__(self) -> None:
        if self.include and self.exclude:
            raise ValueError("environment variables can be included or excluded, not both")


def _positive(_instance: object, attribute: "attrs.Attribute[float]", value: float) -> None:
    if not value >= 0:
        raise ValueError(f"{attribute.name} must not be negative, but is {value}")


@attrs.frozen(kw_only=True)
class RunConfiguration:
    """What `mirrord-trace run` was asked to do."""

    command: tuple[str, ...] = attrs.field(validator=attrs.validators.min_len(1))
    """Program and arguments; the program is looked up in the process's PATH."""
    target: str = "demo"
    """Where the process shall seem to run: `demo` or `pid/PID`."""
    environment: EnvironmentConfiguration = EnvironmentConfiguration()
    outgoing_tcp: bool = True
    """False: TCP connections leave from this machine."""
    outgoing_udp: bool = True
    """False: datagrams leave from this machine. Name lookups mostly are datagrams."""
    ignore_localhost: bool = False
    """True: loopback destinations are always this machine's, never the target's."""
    unix_streams: tuple[re.Pattern[str], ...] = ()
    """Unix stream sockets whose path (abstract names without their NUL) one of these finds are the target's."""
    connect_hold_s: float = attrs.field(default=0.3, validator=_positive)
    """How long a non-blocking connect waits for the far side's answer before it returns EINPROGRESS."""
    delivery: Delivery = "auto"
    """How system calls are intercepted."""
    sudo: bool = False
    """True: the agent, and nothing else, is started through sudo."""
