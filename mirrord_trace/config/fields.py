"""Which fields of mirrord's configuration file we know of and do not have, and why.

mirrord's files are meant to work as they are. A field that asks for what we cannot do must not be ignored, so it is an
error that says so; one that asks for what happens anyway is accepted. The names are those of mirrord 3.250.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs

_LATER = "mirrord-trace does not have this yet"
_OPERATOR = "only mirrord's operator can do this"
_OTHER_WAY = "this is about how mirrord works inside, and has no counterpart in mirrord-trace"
_ANYTHING: Final = (True, False)


@attrs.frozen
class Absent:
    """A field that we do not have."""

    reason: str
    harmless: tuple[Any, ...] | None = ()
    """Values that ask for nothing but what happens anyway; None: whatever the value."""

    def accepts(self, value: object) -> bool:
        """Whether the field can be passed over; null is as good as not written."""
        if value is None or self.harmless is None:
            return True
        # Not `in`, to which 0 is the same as False.
        return any(type(value) is type(other) and value == other for other in self.harmless)


def _each(prefix: str, names: str, absent: Absent) -> dict[str, Absent]:
    return {f"{prefix}{name}": absent for name in names.split()}


ABSENT: Final[Mapping[str, Absent]] = {
    "operator": Absent(_OPERATOR, (False,)),
    "telemetry": Absent("mirrord-trace sends none", _ANYTHING),
    "use_proxy": Absent(_LATER, (True,)),
    "skip_sip": Absent("it concerns macOS only", _ANYTHING),
    "feature.hostname": Absent("the host name is always the target's", (True,)),
    "feature.copy_target": Absent(_OPERATOR, (False, {"enabled": False}, {"enabled": False, "scale_down": False})),
    "feature.fs.readonly_file_buffer": Absent("the kernel keeps what was read, as of any file", None),
    "feature.network.incoming.on_concurrent_steal": Absent(
        "of two sessions that steal a port the second is told who has it, and goes on without", ("continue",)
    ),
    **_each("feature.network.incoming.", "tls_delivery https_delivery", Absent(_LATER)),
    "feature.network.dns": Absent(_LATER, (True, {"enabled": True})),
    "feature.network.ipv6": Absent("IPv6 is always served", (True,)),
    "agent.nftables": Absent(_OTHER_WAY, (True,)),
    **_each("", "skip_processes skip_build_tools skip_extra_build_tools startup_retry", Absent(_LATER)),
    **_each("", "key ci baggage traceparent", Absent(_LATER)),
    **_each("", "profile multi_cluster", Absent(_OPERATOR)),
    **_each("", "container api internal_proxy external_proxy experimental sip_binaries", Absent(_OTHER_WAY)),
    **_each("feature.", "magic", Absent(_LATER)),
    **_each("feature.", "split_queues db_branches preview", Absent(_OPERATOR)),
    "feature.env.load_from_process": Absent("the variables are there before the command starts", _ANYTHING),
    **_each("feature.network.outgoing.", "filter", Absent(_LATER)),
    **_each("agent.", "security_context", Absent(_LATER)),
    **_each(
        "agent.",
        "check_out_of_pods clean_iptables_on_start dns exclude_from_mesh http_detection_timeout json_log log_level "
        "max_body_buffer_size max_body_buffer_timeout metrics network_interface",
        Absent(_OTHER_WAY),
    ),
}
"""By path, as errors name fields."""


def without_harmless(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A copy of what a file says without what can be passed over: `$schema`, and absent fields that ask for nothing."""
    kept = {}
    for name, value in content.items():
        path = f"{prefix}{name}"
        if path == "$schema" or (path in ABSENT and ABSENT[path].accepts(value)):
            continue
        kept[name] = without_harmless(value, f"{path}.") if isinstance(value, dict) else value
    return kept
