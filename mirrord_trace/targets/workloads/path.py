"""What a user writes for a target in a cluster: KIND/NAME or label/SELECTOR, with an optional /container/CONTAINER."""

from __future__ import annotations

import difflib
import re
from typing import Final

import attrs

from mirrord_trace.errors import UsageFailure
from mirrord_trace.targets.workloads.kinds import Kind, kind_of, spellings

LABEL: Final = "label"
_CONTAINER: Final = "/container/"
_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
"""What the API accepts as the name of an object (RFC 1123, a DNS subdomain)."""
_CONTAINER_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_REQUIREMENT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9./_-]*(=|==|!=)[A-Za-z0-9._-]*")
"""One label and its value; what else selectors know does not fit a path."""


@attrs.frozen
class WorkloadPath:
    """A target by its name. `str` gives the name as one would write it."""

    kind: Kind | None
    """None: all pods with certain labels."""
    name: str
    """The object's, or without a kind the selector of the labels, such as "app=web,tier=front"."""
    container: str | None = None
    """None: we choose."""

    @property
    def workload(self) -> str:
        """The name without the container."""
        return f"{LABEL if self.kind is None else self.kind.name}/{self.name}"

    def __str__(self) -> str:
        return f"{self.workload}{_CONTAINER}{self.container}" if self.container else self.workload


def parse_path(text: str) -> WorkloadPath | None:
    """The target that a text means; None when it does not begin with anything like a kind of workload.

    Raises `UsageFailure` for a kind that is known and a rest that cannot be meant.
    """
    spelled, slash, rest = text.partition("/")
    is_label = spelled.lower() == LABEL
    kind = None if is_label else kind_of(spelled)
    if kind is None and not is_label:
        return None
    name, marker, container = rest.partition(_CONTAINER)
    if not slash or not name:
        wanted = "app=web" if is_label else "NAME"
        raise UsageFailure(f"target {text!r} lacks a name", f"Write `{spelled}/{wanted}`.")
    if is_label:
        if not all(_REQUIREMENT.fullmatch(part) for part in name.split(",")):
            raise UsageFailure(
                f"target {text!r}: {name!r} is no label selector",
                "Write `label/app=web` or `label/app=web,tier=front`.",
            )
    elif "/" in name:
        raise UsageFailure(
            f"target {text!r}: {name!r} is no name",
            f"A container is named so: `{spelled}/{name.partition('/')[0]}{_CONTAINER}CONTAINER`.",
        )
    elif not _SUBDOMAIN.fullmatch(name):
        raise UsageFailure(
            f"target {text!r}: {name!r} is no name that Kubernetes accepts",
            "Names have lower-case letters, digits, `-` and `.`.",
        )
    if marker and not _CONTAINER_NAME.fullmatch(container):
        raise UsageFailure(f"target {text!r}: {container!r} is no container's name")
    return WorkloadPath(kind, name, container or None)


def nearest(text: str) -> str | None:
    """The known kind that a text's beginning is most like, if it is like any."""
    known = difflib.get_close_matches(text.partition("/")[0].lower(), (*spellings(), LABEL), n=1)
    return known[0] if known else None
