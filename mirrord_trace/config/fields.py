"""Which fields of mirrord's configuration file we know of and do not have, and why.

mirrord's files are meant to work as they are. A field that asks for what happens anyway is accepted; one that only
mirrord's operator serves, or that is about how mirrord works inside, is accepted, too, and a line says what becomes of
it; one of a feature that could be had here, and is not, is an error. The names are those of mirrord 3.250.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs

_LATER: Final = "mirrord-trace does not have this yet"
_OPERATOR: Final = "only mirrord's operator does this; here it is passed over"
_INSIDE: Final = "this is about how mirrord works inside, and means nothing here"
_ANYTHING: Final = (True, False)


@attrs.frozen
class Absent:
    """A field that we do not have."""

    reason: str
    """What is said of it, behind its path."""
    harmless: tuple[Any, ...] | None = ()
    """Values that ask for nothing but what happens anyway, and need no words; None: whatever the value."""
    is_refused: bool = False
    """Whether other values are an error, and not only told."""

    def accepts(self, value: object) -> bool:
        """Whether nothing need be said; null is as good as not written."""
        if value is None or self.harmless is None:
            return True
        # Not `in`, to which 0 is the same as False.
        return any(type(value) is type(other) and value == other for other in self.harmless)


def _each(prefix: str, names: str, absent: Absent) -> dict[str, Absent]:
    return {f"{prefix}{name}": absent for name in names.split()}


ABSENT: Final[Mapping[str, Absent]] = {
    "operator": Absent("there is none here: the agent is started without", (False,)),
    "telemetry": Absent("mirrord-trace sends none", _ANYTHING),
    "use_proxy": Absent(_LATER, (True,), is_refused=True),
    **_each("", "skip_processes skip_build_tools skip_extra_build_tools", Absent(_LATER, is_refused=True)),
    "startup_retry": Absent(_LATER, is_refused=True),
    "skip_sip": Absent("it concerns macOS only", _ANYTHING),
    "sip_binaries": Absent("it concerns macOS only"),
    "ci": Absent("it is for `mirrord ci`, which mirrord-trace does not have"),
    "container": Absent("it is for `mirrord container`, which mirrord-trace does not have"),
    **_each("", "key profile multi_cluster", Absent(_OPERATOR)),
    **_each("", "baggage traceparent", Absent("mirrord-trace sends no traces of its own start")),
    **_each("", "api internal_proxy external_proxy experimental", Absent(_INSIDE)),
    "feature.magic.turbo": Absent("connections between processes of the command stay here anyway", _ANYTHING),
    "feature.copy_target": Absent(
        "only mirrord's operator copies targets: the target itself is used",
        (False, {"enabled": False}, {"enabled": False, "scale_down": False}),
    ),
    "feature.db_branches": Absent(
        "only mirrord's operator makes branches: the command uses the target's own databases", ([],)
    ),
    "feature.split_queues": Absent(
        "only mirrord's operator splits queues: the command reads the target's own, and takes messages from it", ({},)
    ),
    "feature.preview": Absent(_OPERATOR),
    "feature.env.load_from_process": Absent("the variables are there before the command starts", (False,)),
    "feature.fs.readonly_file_buffer": Absent("the kernel keeps what was read, as of any file", None),
    "feature.network.dns": Absent(_LATER, (True, {"enabled": True}), is_refused=True),
    "feature.network.outgoing.filter": Absent(_LATER, is_refused=True),
    "feature.network.ipv6": Absent("IPv6 is always served", (True,)),
    "feature.network.incoming.on_concurrent_steal": Absent(
        "of two sessions that steal a port the second is told who has it, and goes on without", ("continue",)
    ),
    **_each(
        "feature.network.incoming.",
        "tls_delivery https_delivery",
        Absent("only mirrord's operator opens TLS: it reaches the command as it came"),
    ),
    "agent.nftables": Absent("the agent uses nftables alone", (True,)),
    "agent.security_context": Absent(_LATER, is_refused=True),
    "agent.check_out_of_pods": Absent("a node that has no room refuses the agent, which is told", (True,)),
    "agent.clean_iptables_on_start": Absent("rules of sessions that have ended go by themselves", (True,)),
    "agent.exclude_from_mesh": Absent("no mesh sees the agent's port, which is on a loopback address", _ANYTHING),
    "agent.dns": Absent("the agent resolves nothing: the command's own resolver asks the target's name servers"),
    "agent.network_interface": Absent("traffic is mirrored from all interfaces"),
    "agent.metrics": Absent("the agent has none"),
    **_each("agent.", "log_level json_log", Absent("the agent keeps no log: what goes wrong is told here")),
    "agent.http_detection_timeout": Absent("the agent takes the first bytes as they come"),
    **_each("agent.", "max_body_buffer_size max_body_buffer_timeout", Absent(_LATER, is_refused=True)),
}
"""By path, as errors name fields."""


def without_absent(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A copy of what a file says without `$schema` and the absent fields that are accepted."""
    kept = {}
    for name, value in content.items():
        path = f"{prefix}{name}"
        absent = ABSENT.get(path)
        if path == "$schema" or (absent is not None and (absent.accepts(value) or not absent.is_refused)):
            continue
        kept[name] = without_absent(value, f"{path}.") if isinstance(value, dict) else value
    return kept


def passed_over(content: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """A line for each absent field that is accepted although it asks for something."""
    for name, value in content.items():
        path = f"{prefix}{name}"
        absent = ABSENT.get(path)
        if absent is None:
            if isinstance(value, dict):
                yield from passed_over(value, f"{path}.")
        elif not absent.accepts(value) and not absent.is_refused:
            yield f"{path}: {absent.reason}"
