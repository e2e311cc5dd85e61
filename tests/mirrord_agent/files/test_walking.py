"""Walks are compared with what the kernel makes of the same path, and their steps with what was put there."""

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirrord_agent import libc
from mirrord_agent.files.root import Root
from mirrord_agent.files.walking import look
from mirrord_agent.target import Target
from mirrord_agent.wire.file_frames import Look
from mirrord_agent.wire.file_records import Visited, unpack_walk
from tests.mirrord_agent.files.roots import confined, content, opened, walk


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("root")


@pytest.fixture(scope="module")
def root(folder: Path) -> Iterator[Root]:
    with confined(folder) as target, opened(target) as root:
        yield root


def paths(steps: tuple[Visited, ...]) -> list[bytes]:
    return [step.path for step in steps]


@pytest.fixture(scope="module", autouse=True)
def tree(folder: Path) -> None:
    (folder / "a/b").mkdir(parents=True)
    (folder / "a/b/file").write_text("content")
    (folder / "a/to-file").symlink_to("b/file")
    (folder / "to-b").symlink_to("/a/b")
    (folder / "to-b-slash").symlink_to("/a/b/")
    (folder / "to-file-slash").symlink_to("/a/b/file/")
    (folder / "up").symlink_to("../../../a")
    (folder / "loop").symlink_to("loop")
    (folder / "one").symlink_to("other")
    (folder / "other").symlink_to("one")
    (folder / "dangling").symlink_to("a/nothing")
    (folder / "empty").write_text("")
    os.mkfifo(folder / "fifo")


@pytest.mark.parametrize(
    ("path", "known", "seen"),
    [
        (b"/a/b/file", b"/a/b", [b"/a/b/file"]),
        (b"/a/b/file", b"/a", [b"/a/b", b"/a/b/file"]),
        (b"/a/b/nothing", b"/a/b", [b"/a/b/nothing"]),
        (b"/a/b/", b"/a/b", [b"/a/b"]),
        (b"/a/b/.", b"/a/b", [b"/a/b"]),
        (b"/a/b//file", b"/a/b", [b"/a/b/file"]),
        (b"/a/to-file", b"/a", [b"/a/to-file", b"/a/b", b"/a/b/file"]),
        (b"/a/b/../to-file", b"/a/b", [b"/a/to-file", b"/a/b", b"/a/b/file"]),
        (b"/a/b/../../up/b/file", b"/a/b", [b"/up", b"/a", b"/a/b", b"/a/b/file"]),
    ],
)
def test_a_walk_begins_where_the_way_is_known(root: Root, path: bytes, known: bytes, seen: list[bytes]) -> None:
    steps = walk(root, path, known=len(known))
    assert paths(steps) == seen
    assert steps[-1] == walk(root, path)[-1]


@pytest.mark.parametrize(
    ("path", "known"),
    [
        (b"/to-b/file", b"/to-b"),
        (b"/up/b", b"/up"),
        (b"/nothing/file", b"/nothing"),
        (b"/a/b/file/x", b"/a/b/file"),
        (b"/loop/x", b"/loop"),
        (b"/a/b/file", b"/a/"),
        (b"/a/./b/file", b"/a/./b"),
        (b"/a/b/../b/file", b"/a/b/../b"),
        (b"//a/b/file", b"//a"),
        (b"/a/b/file", b"/a/b/fi"),
        (b"/a/b", b"/a/b"),
        (b"/a/b", b"more than all of it"),
    ],
)
def test_what_is_not_as_it_was_known_is_walked_from_the_root(root: Root, path: bytes, known: bytes) -> None:
    def seen(known: int) -> list[tuple[bytes, int, bytes | None]]:
        return [(step.path, step.errno, step.target) for step in walk(root, path, known=known)]

    assert seen(len(known)) == seen(0)


@pytest.mark.parametrize(
    ("path", "follow", "seen"),
    [
        (b"/a/b/file", True, [b"/a", b"/a/b", b"/a/b/file"]),
        (b"//a/./b//file", True, [b"/a", b"/a/b", b"/a/b/file"]),
        (b"/a/to-file", True, [b"/a", b"/a/to-file", b"/a/b", b"/a/b/file"]),
        (b"/a/to-file", False, [b"/a", b"/a/to-file"]),
        (b"/to-b", True, [b"/to-b", b"/a", b"/a/b"]),
        (b"/to-b", False, [b"/to-b"]),
        (b"/to-b/", False, [b"/to-b", b"/a", b"/a/b"]),
        (b"/to-b/.", False, [b"/to-b", b"/a", b"/a/b"]),
        (b"/to-b-slash", True, [b"/to-b-slash", b"/a", b"/a/b"]),
        (b"/to-b/file", False, [b"/to-b", b"/a", b"/a/b", b"/a/b/file"]),
        (b"/up/b", True, [b"/up", b"/a", b"/a/b"]),
        (b"/a/b/..", True, [b"/a", b"/a/b", b"/a"]),
        (b"/to-b/../to-file", False, [b"/to-b", b"/a", b"/a/b", b"/a/to-file"]),
        (b"/", True, [b"/"]),
        (b"/../..", True, [b"/"]),
        (b"/a/..", True, [b"/a", b"/"]),
    ],
)
def test_steps_come_in_the_order_in_which_the_kernel_goes(
    root: Root, path: bytes, follow: bool, seen: list[bytes]
) -> None:
    steps = walk(root, path, follow=follow)
    assert paths(steps) == seen
    assert not any(step.errno for step in steps)


def test_what_a_link_says_is_told_as_it_says_it(root: Root) -> None:
    assert [step.target for step in walk(root, b"/up/to-file")] == [b"../../../a", None, b"b/file", None, None]


@pytest.mark.parametrize(
    ("path", "seen", "number"),
    [
        (b"/nothing/x", [b"/nothing"], errno.ENOENT),
        (b"/a/nothing", [b"/a", b"/a/nothing"], errno.ENOENT),
        (b"/dangling", [b"/dangling", b"/a", b"/a/nothing"], errno.ENOENT),
        (b"/a/b/file/x", [b"/a", b"/a/b", b"/a/b/file", b"/a/b/file/x"], errno.ENOTDIR),
        (b"/a/b/file/..", [b"/a", b"/a/b", b"/a/b/file", b"/a/b/file/."], errno.ENOTDIR),
        (b"/a/b/file/", [b"/a", b"/a/b", b"/a/b/file", b"/a/b/file/."], errno.ENOTDIR),
        (b"/to-file-slash", [b"/to-file-slash", b"/a", b"/a/b", b"/a/b/file", b"/a/b/file/."], errno.ENOTDIR),
        (b"/loop", [*[b"/loop"] * 41, b"/loop/."], errno.ELOOP),
        (b"/one/x", [*[b"/one", b"/other"] * 20, b"/one", b"/one/."], errno.ELOOP),
        (b"", [b"/."], errno.ENOENT),
        (b"/a/" + b"n" * 256, [b"/a", b"/a/" + b"n" * 256], errno.ENAMETOOLONG),
    ],
)
def test_an_error_is_the_last_step(root: Root, path: bytes, seen: list[bytes], number: int) -> None:
    steps = walk(root, path)
    assert paths(steps) == seen
    assert (steps[-1].errno, steps[-1].status) == (number, None)
    assert not any(step.errno for step in steps[:-1])


def test_forty_links_are_followed_and_not_one_more(folder: Path, root: Root) -> None:
    for number in range(41):
        (folder / f"link{number}").symlink_to(f"link{number + 1}" if number < 40 else "a")
    assert paths(walk(root, b"/link1"))[-1] == b"/a"
    assert walk(root, b"/link0")[-1].errno == errno.ELOOP
    os.close(root.open_path(b"/link1", os.O_PATH))
    with pytest.raises(OSError, match="symbolic links") as error:
        root.open_path(b"/link0", os.O_PATH)
    assert error.value.errno == errno.ELOOP


def test_a_status_is_what_stat_tells(folder: Path, root: Root) -> None:
    for path in (b"/a", b"/a/b/file", b"/a/to-file", b"/fifo"):
        status = walk(root, path, follow=False)[-1].status
        found = os.lstat(os.fsencode(folder) + path)
        assert status is not None
        assert [status.mode, status.ino, status.device, status.nlink, status.uid, status.gid, status.size] == list(
            found[:7]
        )
        assert (status.blocks, status.blksize, status.rdev) == (found.st_blocks, found.st_blksize, found.st_rdev)
        assert (status.atime_ns, status.mtime_ns, status.ctime_ns) == (
            found.st_atime_ns,
            found.st_mtime_ns,
            found.st_ctime_ns,
        )


def test_names_are_bytes(folder: Path, root: Root) -> None:
    names = [b"\xff\xfe", b"caf\xe9", b"n" * 255, b"\n\t \\", "日本".encode(), b"-", b"..."]
    for name in names:
        path = os.fsencode(folder) + b"/" + name
        Path(os.fsdecode(path)).write_bytes(name)
        assert content(root, b"/" + name) == name
        os.unlink(path)


def test_the_longest_path(folder: Path, root: Root) -> None:
    # Each component is made below a descriptor: the path from this machine's root would be too long.
    deep = b"/".join([b"d" * 255] * 15)  # 3839 bytes
    directory = os.open(folder, os.O_PATH)
    for _ in range(15):
        os.mkdir(b"d" * 255, dir_fd=directory)
        below = os.open(b"d" * 255, os.O_PATH, dir_fd=directory)
        os.close(directory)
        directory = below
    longest = b"/" + deep + b"/" + b"f" * (4095 - len(deep) - 2)
    with open(os.open(longest[len(deep) + 2 :], os.O_WRONLY | os.O_CREAT, dir_fd=directory), "wb") as file:
        file.write(b"deep")
    os.close(directory)
    assert len(longest) == 4095
    assert content(root, longest) == b"deep"
    assert len(walk(root, longest)) == 16
    with open(root.open_path(longest, os.O_RDONLY), "rb") as file:
        assert file.read() == b"deep"
    with pytest.raises(OSError, match="too long"):
        root.open_path(longest + b"x", os.O_PATH)


def test_chains_of_dots_go_nowhere(root: Root) -> None:
    assert paths(walk(root, b"/.." * 1300)) == [b"/"]
    assert paths(walk(root, b"/a/.." * 800))[-1] == b"/"
    assert paths(walk(root, b"/a/b/../.." * 400 + b"/a/b/file"))[-1] == b"/a/b/file"


def test_of_a_very_long_walk_the_end_is_told(folder: Path, root: Root) -> None:
    for number in range(4):
        (folder / f"far{number}").symlink_to("a/../" * 780 + (f"far{number + 1}" if number < 3 else "a/b/file"))
    answer = look(root, os.getuid(), Look(1, b"/far0", True, 1000))
    steps = unpack_walk(answer.payload[: -answer.content_length] if answer.content_length else answer.payload)
    assert len(steps) == 2048
    assert paths(steps)[-3:] == [b"/a", b"/a/b", b"/a/b/file"]
    assert answer.content_length == len("content")


# What comes along.


def test_content_comes_along_up_to_the_limit(root: Root) -> None:
    assert content(root, b"/a/b/file", 7) == b"content"
    assert content(root, b"/to-b/file") == b"content"
    assert content(root, b"/empty") == b""
    for path, limit, number in (
        (b"/a/b/file", 6, errno.EFBIG),
        (b"/a/b/file", 0, 0),
        (b"/a", 100, 0),
        (b"/fifo", 100, 0),
        (b"/nothing", 100, 0),
    ):
        answer = look(root, os.getuid(), Look(1, path, True, limit))
        assert (answer.content_length, answer.content_errno) == (None, number)


def test_a_file_that_grows_while_it_is_read_comes_whole_or_not_at_all(folder: Path, root: Root) -> None:
    growing = folder / "growing"
    growing.write_bytes(b"")
    writing = (
        "import sys\n"
        "with open(sys.argv[1], 'ab', buffering=0) as file:\n"
        " for _ in range(20000): file.write(b'123456789\\n')\n"
    )
    with subprocess.Popen([sys.executable, "-c", writing, str(growing)]) as writer:
        while writer.poll() is None:
            answer = look(root, os.getuid(), Look(1, b"/growing", True, 200_000))
            if answer.content_length is None:
                assert answer.content_errno == errno.EFBIG
                continue
            end = len(answer.payload) - answer.content_length
            status = unpack_walk(answer.payload[:end])[-1].status
            assert status is not None
            assert status.size == answer.content_length
            assert answer.payload[end:] == (b"123456789\n" * 20000)[: answer.content_length]


def test_paths_that_change_while_they_are_walked_never_lead_out(tmp_path: Path) -> None:
    """A directory is a link to the root's outside every other moment, and moves out of the root, too."""
    inside = tmp_path / "root"
    (inside / "d/e").mkdir(parents=True)
    (inside / "d/e/f").write_text("inside")
    (tmp_path / "f").write_text("outside")
    (tmp_path / "e").mkdir()
    (tmp_path / "e/f").write_text("outside")
    moving = (
        "import os, sys\nos.chdir(sys.argv[1])\n"
        "while True:\n"
        " os.rename('root/d', 'd'); os.symlink(sys.argv[1], 'root/d'); os.unlink('root/d'); os.rename('d', 'root/d')\n"
    )
    read = 0
    command = [sys.executable, "-c", moving, str(tmp_path)]
    with confined(inside) as target, opened(target) as root, subprocess.Popen(command) as mover:
        try:
            for path in (b"/d/e/f", b"/d/e/../e/f", b"/d/e/../../f", b"/d/../f", b"/d/../../e/f") * 2000:
                with suppress(OSError):
                    assert content(root, path) == b"inside"
                    read += 1
        finally:
            mover.kill()
    assert read


# Links that are none, and those that are protected.


@pytest.fixture
def own_root() -> Iterator[Root]:
    """The root of this machine, where /proc is."""
    target = Target.open(os.getpid())
    with opened(target) as root:
        yield root
    target.close()


@pytest.mark.parametrize("path", [b"/proc/%d/root/etc", b"/proc/%d/cwd", b"/proc/%d/exe", b"/proc/%d/fd/0"])
def test_magic_links_are_told_and_not_followed(own_root: Root, path: bytes) -> None:
    steps = walk(own_root, path % os.getpid())
    assert steps[-1].errno == errno.EXDEV
    assert steps[-1].path.endswith(b"/.")
    assert steps[-2].target is not None
    with pytest.raises(OSError, match="cross-device") as error:
        own_root.open_path(path % os.getpid(), os.O_PATH)
    assert error.value.errno == errno.EXDEV


def test_other_links_of_proc_are_followed(own_root: Root) -> None:
    steps = walk(own_root, b"/proc/self/status")
    assert paths(steps) == [b"/proc", b"/proc/self", b"/proc/%d" % os.getpid(), b"/proc/%d/status" % os.getpid()]
    assert steps[-1].status is not None
    assert steps[-1].status.size == 0


def test_files_whose_size_says_nothing_do_not_come_along(own_root: Root) -> None:
    for path in (b"/proc/self/status", b"/sys/kernel/mm/transparent_hugepage/enabled", b"/proc/kmsg"):
        answer = look(own_root, os.getuid(), Look(1, path, True, 10_000))
        assert (answer.content_length, answer.content_errno) == (None, errno.EFBIG)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give links away")
def test_links_of_others_in_sticky_directories_are_followed_as_the_kernel_does(tmp_path: Path) -> None:
    protects = Path("/proc/sys/fs/protected_symlinks").read_text().strip() != "0"
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    (tmp_path / "file").write_text("x")
    for owner in (1, 2):
        link = shared / f"of-{owner}"
        link.symlink_to("../file")
        os.lchown(link, owner, owner)
    os.chown(shared, 2, 2)
    with confined(tmp_path) as target, opened(target) as root:
        for uid, path, denied in ((1, b"of-1", False), (0, b"of-1", protects), (0, b"of-2", False)):
            steps = unpack_walk(look(root, uid, Look(1, b"/shared/" + path, True, 0)).payload)
            assert steps[-1].errno == (errno.EACCES if denied else 0)
            # In the middle of a path nobody is protected.
            through = unpack_walk(look(root, uid, Look(1, b"/shared/" + path + b"/../file", True, 0)).payload)
            assert through[-1].errno == errno.ENOTDIR


# Any tree, any path.

NAMES = ["a", "b", "c"]
COMPONENTS = st.sampled_from([*NAMES, "..", ".", "", "x"])
TEXTS = st.tuples(st.sampled_from(["", "/"]), st.lists(COMPONENTS, min_size=1, max_size=4)).map(
    lambda parts: parts[0] + "/".join(parts[1]) or "/"
)
TREES = st.dictionaries(
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join),
    st.one_of(st.just("file"), st.just("directory"), TEXTS.map(lambda text: f"link {text}")),
    max_size=8,
)


def plant(directory: Path, tree: dict[str, str]) -> None:
    for name in sorted(tree):
        path = directory / name
        if os.path.realpath(path.parent) != str(path.parent):
            continue  # through a link, to who knows where on this machine
        kind, _, text = tree[name].partition(" ")
        with suppress(OSError):
            if kind == "link":
                path.symlink_to(text)
            elif kind == "file":
                path.write_text(name)
            else:
                path.mkdir()


def clear(directory: Path) -> None:
    for path in directory.iterdir():
        if path.is_dir() and not path.is_symlink():
            clear(path)
            path.rmdir()
        else:
            path.unlink()


def kernels_way(root: Root, path: bytes, follow: bool) -> tuple[int, os.stat_result | None]:
    """The errno, or what is found, when the kernel walks."""
    try:
        found = root.open_path(path, os.O_PATH | (0 if follow else os.O_NOFOLLOW))
    except OSError as error:
        return error.errno or 0, None
    try:
        return 0, os.fstat(found)
    finally:
        os.close(found)


@settings(max_examples=400, deadline=None)
@given(tree=TREES, path=TEXTS, follow=st.booleans())
def test_a_walk_ends_where_the_kernel_does(
    folder: Path, root: Root, tree: dict[str, str], path: str, follow: bool
) -> None:
    planted = folder.resolve() / "planted"
    planted.mkdir()
    try:
        plant(planted, tree)
        inner = Root(libc.openat2(root.descriptor, b"planted", os.O_PATH, 0))
        try:
            end = walk(inner, path.encode(), follow=follow)[-1]
            number, found = kernels_way(inner, path.encode(), follow)
            assert end.errno == number
            if found is not None:
                assert end.status is not None
                assert (end.status.ino, end.status.mode) == (found.st_ino, found.st_mode)
                assert os.lstat(os.fsencode(planted) + end.path).st_ino == found.st_ino
                assert stat.S_ISLNK(found.st_mode) == (end.target is not None)
        finally:
            inner.release()
    finally:
        clear(planted)
        planted.rmdir()
