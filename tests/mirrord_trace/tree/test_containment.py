"""Paths that have links and ".." in them, in a scratch directory."""

from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrord_trace.policy.paths import climbs
from mirrord_trace.remote_files import RemoteFiles
from mirrord_trace.tree import containment
from tests.mirrord_agent.support import in_trio
from tests.mirrord_trace.tree.scratch_files import ScratchFiles

ROOT = b"/w/tree"


@pytest.mark.parametrize(
    ("path", "does_climb", "before", "rest"),
    [
        (b"/a/..", True, b"/a/..", b""),
        (b"/a/../", True, b"/a/..", b"/"),
        (b"/a/../b/../c/d", True, b"/a/../b/..", b"/c/d"),
        (b"../x", True, b"..", b"/x"),
        (b"/a..b/..c/d..", False, b"", b""),
        (b"/a/...", False, b"", b""),
    ],
)
def test_where_a_path_climbs(path: bytes, does_climb: bool, before: bytes, rest: bytes) -> None:
    assert climbs(path) is does_climb
    if does_climb:
        assert containment.split_at_last_climb(path) == (before, rest)


@given(st.lists(st.sampled_from([b"", b".", b"..", b"a", b"..b"]), min_size=1).map(b"/".join).filter(climbs))
def test_what_is_left_does_not_climb(path: bytes) -> None:
    before, rest = containment.split_at_last_climb(path)
    assert before + rest == path
    assert not climbs(rest)
    assert before.endswith(b"..")


@pytest.mark.parametrize(
    ("path", "inside"),
    [
        (b"/w/tree", b"/"),
        (b"/w/tree/a/b", b"/a/b"),
        (b"/w/tree/", b"/"),
        (b"/w/trees", None),
        (b"/w", None),
        (b"/", None),
        (b"", None),
    ],
)
def test_what_the_pod_calls_a_path(path: bytes, inside: bytes | None) -> None:
    assert containment.pod_path(ROOT, path) == inside


@in_trio
async def test_the_root_is_a_wall(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/file").write_text("")
    (tmp_path / "link").symlink_to("/a/b")
    files = cast(RemoteFiles, ScratchFiles(tmp_path))
    for path, wanted in (
        (b"/a/b", b"/a/b"),
        (b"/..", b"/"),
        (b"/../../a", b"/a"),
        (b"/link/../file", b"/a/file"),
        (b"/link/../../a/b/../../link", b"/link"),
        (b"/a/b/../../../../x/y", b"/x/y"),
        (b"/a/../", b"/"),
    ):
        assert await containment.without_climbs(files, path) == wanted, path
    for path, error in ((b"/x/..", FileNotFoundError), (b"/a/file/..", NotADirectoryError)):
        with pytest.raises(error):
            await containment.without_climbs(files, path)


@in_trio
async def test_targets_lead_to_the_same_place_in_the_tree(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    files = ScratchFiles(tmp_path)
    for directory, target, wanted in (
        (b"/a", b"/x", ROOT + b"/x"),
        (b"/a", b"/", ROOT + b"/"),
        (b"/a", b"x/y", b"x/y"),
        (b"/a", b"./x", b"./x"),
        (b"/a", b"b/../x", ROOT + b"/a/x"),
        (b"/a/b", b"../../../../etc", ROOT + b"/etc"),
        (b"/a/b", b"../../etc", b"../../etc"),
        (b"/a/b", b".././/../etc/x", b".././/../etc/x"),
        (b"/a/b", b"..", b".."),
        (b"", b"../x", ROOT + b"/x"),
        (b"/a", b"/../x", ROOT + b"/x"),
    ):
        assert await containment.contained_target(cast(RemoteFiles, files), ROOT, [directory], target) == wanted
    several = await containment.contained_target(cast(RemoteFiles, files), ROOT, [b"/a/b", b"/a"], b"../../etc")
    assert several == ROOT + b"/etc", "through its other name it would lead out"
    with pytest.raises(FileNotFoundError):
        await containment.contained_target(cast(RemoteFiles, files), ROOT, [b"/a"], b"nothing/../x")
