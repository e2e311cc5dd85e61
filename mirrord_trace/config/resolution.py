"""Where each value of the effective configuration comes from.

Sources are given in the order of precedence: flags, variables, file. `resolved` merges them into one `Document` and
says for each field that one of them sets which it was; a field that none sets is absent from `origins` and has its
default. Fields are named by their paths, as in errors: `agent.ttl`, `feature.fs.mode`. A field that is one value, such
as `feature.network.incoming.http_filter`, has one origin.

A source says of itself what it is called (a file's path), and of single fields what set them, where it knows better:
`--agent-ttl`, `MIRRORD_AGENT_TTL`. Nothing here reads files, the environment or the command line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from typing import Any, Final

import attrs

from mirrord_trace.config.document import Document, Section, merged

DEFAULT: Final = "default"
"""The origin of what no source sets."""


@attrs.frozen
class Source:
    """One place in which a configuration is given."""

    name: str
    """As people know it: a file's path, `flags`."""
    document: Document
    names: Mapping[str, str] = attrs.field(factory=dict)
    """What set a field, by the field's path, where that is more than the source's name."""


@attrs.frozen
class Resolved:
    """A configuration, and where its values come from."""

    document: Document
    origins: Mapping[str, str]
    """By path, for each field that a source sets."""

    def origin(self, path: str) -> str:
        """What set a field; `DEFAULT` if nothing did."""
        return self.origins.get(path, DEFAULT)


def resolved(sources: Sequence[Source]) -> Resolved:
    """What the sources say together, the first before the second."""
    origins: dict[str, str] = {}
    for source in reversed(sources):
        for path, _ in set_fields(source.document):
            origins[path] = source.names.get(path, source.name)
    return Resolved(reduce(merged, (source.document for source in sources), Document()), origins)


def set_fields(section: Section, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The paths of all fields below a section that are set, with their values."""
    for field in attrs.fields(type(section)):
        value = getattr(section, field.name)
        if isinstance(value, Section):
            yield from set_fields(value, f"{prefix}{field.name}.")
        elif value is not None:
            yield f"{prefix}{field.name}", value
