"""What the structures' modules share."""

Buffer = bytes | bytearray | memoryview
"""What can be decoded."""


def require(raw: Buffer, offset: int, size: int, name: str) -> None:
    """Raise ValueError unless `size` bytes of structure `name` are in `raw` at `offset`."""
    if len(raw) - offset < size:
        raise ValueError(f"{name} takes {size} bytes, not {max(len(raw) - offset, 0)}")
