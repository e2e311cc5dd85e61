from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrord_agent.wire.file_records import (
    STATUS_BYTES,
    Entry,
    FilesystemStatus,
    Mount,
    Status,
    Visited,
    pack_entry,
    pack_filesystem,
    pack_mounts,
    pack_status,
    pack_walk,
    unpack_entries,
    unpack_filesystem,
    unpack_mounts,
    unpack_status,
    unpack_walk,
)
from tests.mirrord_agent.wire.file_strategies import ENTRIES, FILESYSTEMS, MOUNTS, STATUSES, STEPS

STATUS = Status(0o100644, 2, 1, 0, 0, 0, 7, 8, 4096, 1, 2, 3, 4, False)


def packed(entry: Entry) -> bytes:
    return pack_entry(entry.name, b"" if entry.status is None else pack_status(entry.status))


@given(STATUSES)
def test_a_status_survives(status: Status) -> None:
    assert len(pack_status(status)) == STATUS_BYTES == 93
    assert unpack_status(pack_status(status)) == status


@given(FILESYSTEMS)
def test_a_filesystems_status_survives(status: FilesystemStatus) -> None:
    assert unpack_filesystem(pack_filesystem(status)) == status


@given(st.lists(ENTRIES, max_size=20))
def test_entries_survive(entries: list[Entry]) -> None:
    assert unpack_entries(b"".join(map(packed, entries))) == tuple(entries)


@given(st.lists(STEPS, max_size=20))
def test_a_walk_survives(steps: list[Visited]) -> None:
    assert unpack_walk(pack_walk(steps)) == tuple(steps)


@given(st.lists(MOUNTS, max_size=20))
def test_mounts_survive(mounts: list[Mount]) -> None:
    assert unpack_mounts(pack_mounts(mounts)) == tuple(mounts)


def test_a_path_is_told_by_what_is_new_of_it() -> None:
    names = [b"%03d" % number for number in range(1000)]
    steps = [Visited(b"/" + b"/".join(names[: end + 1]), STATUS, 0, None) for end in range(len(names))]
    assert len(pack_walk(steps)) < 120 * len(steps)


@given(st.lists(ENTRIES, min_size=1, max_size=4), st.data())
def test_a_listing_that_is_cut_off_is_refused(entries: list[Entry], data: st.DataObject) -> None:
    whole = b"".join(map(packed, entries))
    ends = {len(b"".join(map(packed, entries[:count]))) for count in range(len(entries) + 1)}
    cut = data.draw(st.integers(0, len(whole)).filter(lambda end: end not in ends))
    with pytest.raises(ValueError, match="cut off"):
        unpack_entries(whole[:cut])


@given(st.lists(STEPS, min_size=1, max_size=4), st.data())
def test_a_walk_that_is_cut_off_is_refused(steps: list[Visited], data: st.DataObject) -> None:
    whole = pack_walk(steps)
    ends = {len(pack_walk(steps[:count])) for count in range(len(steps) + 1)}
    cut = data.draw(st.integers(0, len(whole)).filter(lambda end: end not in ends))
    with pytest.raises(ValueError, match="cut off"):
        unpack_walk(whole[:cut])


@given(st.binary(max_size=400))
def test_garbage_is_refused_or_means_something(data: bytes) -> None:
    for unpack in (unpack_status, unpack_filesystem, unpack_entries, unpack_walk, unpack_mounts):
        with suppress(ValueError):
            unpack(data)


@pytest.mark.parametrize("name", [b"", b"a/b", b"/"])
def test_a_listing_has_names_only(name: bytes) -> None:
    with pytest.raises(ValueError, match="name"):
        unpack_entries(pack_entry(name, b""))


def test_a_step_cannot_share_more_than_there_was() -> None:
    with pytest.raises(ValueError, match="shares"):
        unpack_walk(b"\0\0\0\1" + pack_walk([Visited(b"/a", None, 2, None)])[4:])


@pytest.mark.parametrize(
    "data", [b"", b"\xc1", b"\x01", b"\x91\x01", b"\x91\x95\xc4\x01a\xc4\x01a\xc4\x01a\xc4\x01a\x01"]
)
def test_malformed_mounts_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="mount"):
        unpack_mounts(data)
