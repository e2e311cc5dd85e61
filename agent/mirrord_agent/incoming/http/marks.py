"""The header by which a response says who served it."""

from __future__ import annotations

import re
from collections.abc import Mapping

import attrs

from mirrord_agent.incoming.http.actions import Side

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_VALUE = re.compile(rb"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")


@attrs.frozen
class Mark:
    """A header for the responses of each side that has a value here; those of the others stay as they come.

    Raises ValueError if it would be none: names are in lower case, as HTTP/2 wants them.
    """

    name: bytes
    values: Mapping[Side, bytes]

    def __attrs_post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or not all(map(_VALUE.fullmatch, self.values.values())):
            raise ValueError(f"{self.name!r:.80} with {list(self.values.values())!r:.80} is no header in lower case")

    def header(self, side: Side) -> tuple[bytes, bytes] | None:
        """The header for that side's responses, if they have one."""
        value = self.values.get(side)
        return None if value is None else (self.name, value)


#: On responses that the user's process gave.
OF_PROCESS = Mark(b"mirrord-trace-served-by", {Side.PROCESS: b"local-process"})
