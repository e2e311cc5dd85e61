"""A directory, read piece by piece, each entry with its status.

Pieces are made when they are asked for, so what is held of a directory with a hundred thousand entries is one piece.
"""

from __future__ import annotations

import os

from mirrord_agent.files.root import Held, Root, way_to
from mirrord_agent.files.statuses import has_attributes, status_from
from mirrord_agent.wire.file_frames import ListDirectory, Listed, ListMore
from mirrord_agent.wire.file_records import pack_entry, pack_status

#: Bytes of the first piece: it is there soon.
_FIRST_BYTES = 16 << 10
#: Bytes of the others; the last entry may exceed it.
MOST_BYTES = 128 << 10


class Listing(Held):
    """A directory that is being read."""

    def __init__(self, root: Root, request: ListDirectory) -> None:
        """Raises OSError."""
        super().__init__(root.open_path(request.path, os.O_PATH | os.O_DIRECTORY))
        try:
            self._entries = os.scandir(way_to(self.descriptor))
        except BaseException:
            super().close()
            raise
        self._piece_bytes = _FIRST_BYTES
        self.in_use = False
        """Whether a worker is reading it."""

    def close(self) -> None:
        """Closes it; by the last user only."""
        self._entries.close()
        super().close()

    def next_piece(self, request: ListDirectory | ListMore) -> Listed:
        """The next entries. Raises OSError."""
        pieces: list[bytes] = []
        length = 0
        directory = self.descriptor
        way = way_to(directory) + b"/"
        for entry in self._entries:
            name = entry.name
            try:
                found = os.stat(name, dir_fd=directory, follow_symlinks=False)
            except OSError:
                piece = pack_entry(name, b"")
            else:
                piece = pack_entry(name, pack_status(status_from(found, has_attributes(way + name))))
            pieces.append(piece)
            length += len(piece)
            if length >= self._piece_bytes:
                self._piece_bytes = MOST_BYTES
                return Listed(request.stream, False, b"".join(pieces))
        return Listed(request.stream, True, b"".join(pieces))


def begin_listing(root: Root, request: ListDirectory) -> tuple[Listing, Listed]:
    """Opens a directory and reads its first entries. Raises OSError."""
    listing = Listing(root, request)
    try:
        return listing, listing.next_piece(request)
    except BaseException:
        listing.release()
        raise
