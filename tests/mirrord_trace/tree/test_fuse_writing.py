"""What programs can do to files that they may write, through a real mount: it happens in the pod, at once."""

import ctypes
import errno
import fcntl
import os
import stat
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trio

from mirrord_trace.tree.base import LIFETIME_S
from tests.mirrord_trace.tree.mounted import Mounted, on_mount

MIB = 1 << 20
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2
_libc = ctypes.CDLL(None, use_errno=True)


def errno_of(action: object, *arguments: object) -> int:
    try:
        action(*arguments)  # type: ignore[operator]
    except OSError as error:
        return error.errno or 0
    return 0


@on_mount()
async def test_what_is_written_is_in_the_pod(mount: Mounted) -> None:
    content = os.urandom(3 * MIB + 7)

    def write() -> None:
        with open(mount.root / "new", "wb", buffering=0) as file:
            file.write(content)
            os.pwrite(file.fileno(), b"in the middle", MIB)
            assert (mount.pod / "new").read_bytes()[MIB : MIB + 13] == b"in the middle"
            os.fsync(file.fileno())
            os.fdatasync(file.fileno())
            assert os.fstat(file.fileno()).st_size == len(content)
            file.truncate(10)
            assert (mount.pod / "new").stat().st_size == 10
        assert (mount.root / "new").read_bytes() == content[:10]

    await mount.do(write)
    assert mount.scratch is None or mount.files.asks["sync"] == 2


@on_mount()
async def test_opening_modes(mount: Mounted) -> None:
    (mount.pod / "file").write_text("content")
    root = mount.root

    def check() -> None:
        assert errno_of(os.open, root / "file", os.O_CREAT | os.O_EXCL | os.O_WRONLY) == errno.EEXIST
        assert errno_of(os.open, root / "nothing", os.O_WRONLY) == errno.ENOENT
        assert errno_of(os.open, root / "file", os.O_DIRECTORY) == errno.ENOTDIR
        assert errno_of(os.open, root, os.O_WRONLY) == errno.EISDIR
        with open(root / "file", "r+") as file:
            file.seek(3)
            file.write("TENT")
        assert (root / "file").read_text() == "conTENT"
        with open(root / "file", "w") as file:
            assert (mount.pod / "file").read_text() == ""
            file.write("new")
        assert (mount.pod / "file").read_text() == "new"
        mask = os.umask(0o027)
        try:
            os.close(os.open(root / "masked", os.O_CREAT | os.O_WRONLY, 0o666))
            (root / "directory").mkdir(0o777)
            os.mkfifo(root / "fifo", 0o666)
        finally:
            os.umask(mask)
        for name in ("masked", "directory", "fifo"):
            assert stat.S_IMODE((mount.pod / name).stat().st_mode) & 0o027 == 0, name

    await mount.do(check)


@on_mount()
async def test_appending_is_at_the_end_that_the_file_has_in_the_pod(mount: Mounted) -> None:
    (mount.pod / "log").write_text("1\n")

    def append() -> None:
        with open(mount.root / "log", "a", buffering=1) as ours, open(mount.pod / "log", "a", buffering=1) as theirs:
            ours.write("2\n")
            theirs.write("3\n")
            ours.write("4\n")
        assert (mount.pod / "log").read_text() == "1\n2\n3\n4\n"

    await mount.do(append)
    assert await mount.shell("cat log") == "1\n2\n3\n4\n"


@on_mount()
async def test_a_mapping_is_written_back(mount: Mounted) -> None:
    (mount.pod / "file").write_bytes(bytes(10_000))
    script = (
        "import mmap, os\n"
        "with open('file', 'r+b') as file, mmap.mmap(file.fileno(), 0) as memory:\n"
        "    memory[5000:5005] = b'dirty'\n"
        "    memory.flush()\n"
        "    print(open(os.environ['POD'] + '/file', 'rb').read()[4999:5006])\n"
        "    memory[9000:9004] = b'late'\n"
    )
    (mount.pod / "script").write_text(script)
    assert await mount.shell(f"{sys.executable} script") == "b'\\x00dirty\\x00'\n"
    assert (mount.pod / "file").read_bytes()[9000:9004] == b"late"


@on_mount()
async def test_directories_and_names(mount: Mounted) -> None:
    root, pod = mount.root, mount.pod

    def check() -> None:
        (root / "a/b/c").mkdir(parents=True)
        assert errno_of(os.mkdir, root / "a") == errno.EEXIST
        assert errno_of(os.rmdir, root / "a") == errno.ENOTEMPTY
        (root / "a/b/file").write_text("moved along")
        with open(root / "a/b/file") as file:
            os.rename(root / "a", root / "z")
            assert os.fstat(file.fileno()).st_size == 11
            assert file.read() == "moved along"
        assert not (root / "a").exists()
        assert (root / "z/b/file").read_text() == "moved along"
        (root / "z/b/file").write_text("written there")
        assert (pod / "z/b/file").read_text() == "written there"
        os.link(root / "z/b/file", root / "hard")
        assert (root / "hard").stat().st_nlink == 2
        assert (root / "hard").stat().st_ino == (root / "z/b/file").stat().st_ino == (pod / "hard").stat().st_ino
        (root / "z/b/file").unlink()
        assert (root / "hard").stat().st_nlink == 1
        os.symlink("/hard", root / "soft")
        assert os.readlink(pod / "soft") == "/hard"
        assert (root / "soft").read_text() == "written there"
        os.rmdir(root / "z/b/c")
        os.rmdir(root / "z/b")
        assert errno_of(os.rmdir, root / "hard") == errno.ENOTDIR
        assert errno_of(os.unlink, root / "z") == errno.EISDIR
        assert sorted(os.listdir(root)) == sorted(os.listdir(pod)) == ["hard", "soft", "z"]

    await mount.do(check)


@on_mount()
async def test_a_name_that_is_replaced_is_the_new_file_at_once(mount: Mounted) -> None:
    (mount.pod / "config").write_text("old")

    def replace() -> None:
        with open(mount.root / "config") as old:
            for number in range(20):
                (mount.root / "config.new").write_text(f"version {number}")
                os.replace(mount.root / "config.new", mount.root / "config")
                assert (mount.root / "config").read_text() == f"version {number}"
                assert not (mount.root / "config.new").exists()
            assert old.read() == "old"

    await mount.do(replace)


@on_mount()
async def test_what_is_unlinked_stays_open(mount: Mounted) -> None:
    def check() -> None:
        with open(mount.root / "file", "w+") as file:
            file.write("still ")
            file.flush()
            os.unlink(mount.root / "file")
            assert not (mount.pod / "file").exists()
            file.write("here")
            file.flush()
            found = os.fstat(file.fileno())
            assert (found.st_size, found.st_nlink) == (10, 0)
            os.fchmod(file.fileno(), 0o600)
            os.ftruncate(file.fileno(), 5)
            file.seek(0)
            assert file.read() == "still"
        (mount.pod / "read").write_text("from the pod")
        with open(mount.root / "read") as file:
            os.unlink(mount.root / "read")
            (mount.root / "read").write_text("another file")
            assert file.read() == "from the pod"

    await mount.do(check)


@on_mount()
async def test_what_is_unlinked_can_be_opened_again(mount: Mounted) -> None:
    def check() -> None:
        (mount.pod / "file").write_text("content")
        with open(mount.root / "file") as file:
            os.unlink(mount.root / "file")
            again = Path(f"/proc/self/fd/{file.fileno()}")
            assert again.read_text() == "content"
            with pytest.raises(OSError, match="Read-only"):
                os.open(again, os.O_WRONLY)
        with open(mount.root / "file", "w+") as file:
            os.unlink(mount.root / "file")
            again.write_text("written")
            assert file.read() == "written"

    await mount.do(check)


@on_mount()
async def test_a_file_without_a_name_gets_one(mount: Mounted) -> None:
    creations, root, pod = mount.tree.creations, mount.root, mount.pod

    def unnamed(*, may_get_a_name: bool) -> int:
        name = creations.name_of_unnamed(may_get_a_name=may_get_a_name)
        return os.open(os.fsencode(root / "below") + b"/" + name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o640)

    def make() -> tuple[int, int]:
        (root / "below").mkdir()
        file = unnamed(may_get_a_name=True)
        assert os.listdir(pod / "below") == os.listdir(root / "below") == []
        os.write(file, b"content")
        os.fchmod(file, 0o604)
        found = os.fstat(file)
        assert (found.st_nlink, found.st_size, stat.S_IMODE(found.st_mode)) == (0, 7, 0o604)
        with pytest.raises(OSError, match="not supported"):
            os.setxattr(file, "user.x", b"x")
        assert not (root / "below/named").exists()
        return file, found.st_ino

    def look(file: int) -> None:
        assert (root / "below/named").read_text() == (pod / "below/named").read_text() == "content"
        assert os.fstat(file) == os.stat(root / "below/named")
        assert os.fstat(file).st_nlink == 1
        os.close(file)

    file, number = await mount.do(make)
    await mount.tree.give_name(number, b"/below/named")
    await mount.do(look, file)
    file = await mount.do(lambda: unnamed(may_get_a_name=False))
    number = (await mount.do(os.fstat, file)).st_ino
    for inode, path in ((number, b"/below/private"), (number, b"/nothing/x"), (1 << 40, b"/below/x")):
        with pytest.raises(FileNotFoundError):
            await mount.tree.give_name(inode, path)
    await mount.do(os.close, file)


@on_mount()
async def test_attributes_are_changed(mount: Mounted) -> None:
    (mount.pod / "file").write_text("x" * 100)
    (mount.pod / "link").symlink_to("file")
    root, pod = mount.root, mount.pod

    def check() -> None:
        os.chmod(root / "file", 0o6711)
        assert stat.S_IMODE((pod / "file").stat().st_mode) == stat.S_IMODE((root / "file").stat().st_mode) == 0o6711
        os.chown(root / "file", 11, 12)
        os.lchown(root / "link", 21, 22)
        for name, wanted in (("file", (11, 12)), ("link", (21, 22))):
            found = os.lstat(pod / name)
            assert (found.st_uid, found.st_gid) == wanted
        os.utime(root / "file", ns=(1_000_000_001, 2_000_000_002))
        found = (pod / "file").stat()
        assert (found.st_atime_ns, found.st_mtime_ns) == (1_000_000_001, 2_000_000_002)
        os.utime(root / "file", ns=(5, 6), dir_fd=None, follow_symlinks=False)
        assert (root / "file").stat().st_mtime_ns == 6
        os.utime(root / "file", ((1 << 40) - 1, -1))  # the pod's file system may know a time that late, or its own last
        found = (pod / "file").stat()
        assert found.st_atime > 1 << 32
        assert found.st_mtime == -1
        os.utime(root / "file", (-(1 << 40), 1))
        assert (pod / "file").stat().st_atime <= -(1 << 31)
        before = time.time_ns()
        os.utime(root / "file")
        assert before - 10**8 <= (pod / "file").stat().st_mtime_ns <= time.time_ns()
        os.truncate(root / "file", 7)
        assert (root / "file").stat().st_size == (pod / "file").stat().st_size == 7

    await mount.do(check)


@on_mount(writable=lambda path: path.startswith(b"/data"))
async def test_where_nothing_may_be_written(mount: Mounted) -> None:
    for name in ("data", "other"):
        (mount.pod / name).mkdir()
        (mount.pod / name / "file").write_text("kept")
    root = mount.root

    def check() -> None:
        (root / "data/new").write_text("new")
        (root / "data/file").chmod(0o600)
        for action in (
            lambda: os.open(root / "other/file", os.O_WRONLY),
            lambda: os.open(root / "other/file", os.O_RDONLY | os.O_TRUNC),
            lambda: os.open(root / "other/new", os.O_WRONLY | os.O_CREAT),
            lambda: os.truncate(root / "other/file", 0),
            lambda: os.mkdir(root / "other/new"),
            lambda: os.mkfifo(root / "other/new"),
            lambda: os.symlink("x", root / "other/new"),
            lambda: os.link(root / "data/file", root / "other/new"),
            lambda: os.link(root / "other/file", root / "data/new2"),
            lambda: os.rename(root / "other/file", root / "data/moved"),
            lambda: os.rename(root / "data/new", root / "other/moved"),
            lambda: os.unlink(root / "other/file"),
            lambda: os.rmdir(root / "other"),
            lambda: os.chmod(root / "other/file", 0o777),
            lambda: os.chown(root / "other/file", 1, 1),
            lambda: os.utime(root / "other/file"),
            lambda: os.setxattr(root / "other/file", "user.x", b"y"),
        ):
            assert errno_of(action) == errno.EROFS
        assert not os.access(root / "other/file", os.W_OK)
        assert os.access(root / "data/file", os.W_OK)
        assert os.access(root / "other/file", os.R_OK)
        assert errno_of(os.open, root / "other/nothing", os.O_WRONLY) == errno.ENOENT
        assert errno_of(os.mkdir, root / "other/file") == errno.EEXIST
        assert errno_of(os.unlink, root / "other/nothing") == errno.ENOENT

    await mount.do(check)
    assert sorted(os.listdir(mount.pod / "other")) == ["file"]


@on_mount()
async def test_extended_attributes_are_set(mount: Mounted) -> None:
    (mount.pod / "file").write_text("")
    probe = errno_of(os.setxattr, mount.pod / "file", "user.probe", b"")
    assert probe == 0, "the file system of the test's directory has no extended attributes: set TMPDIR to one that has"
    if mount.scratch is not None:
        mount.scratch.has_attributes = True
    path = mount.root / "file"

    def check() -> None:
        os.setxattr(path, "user.x", b"value \0 with NUL")
        assert os.getxattr(mount.pod / "file", "user.x") == b"value \0 with NUL"
        assert errno_of(os.setxattr, path, "user.x", b"", os.XATTR_CREATE) == errno.EEXIST
        assert errno_of(os.setxattr, path, "user.y", b"", os.XATTR_REPLACE) == errno.ENODATA
        assert os.getxattr(path, "user.x") == b"value \0 with NUL"
        assert sorted(os.listxattr(path)) == ["user.probe", "user.x"]
        os.removexattr(path, "user.x")
        assert errno_of(os.getxattr, path, "user.x") == errno.ENODATA

    await mount.do(check)


@on_mount()
async def test_locks_are_local(mount: Mounted) -> None:
    (mount.pod / "file").write_text("x")
    first = await mount.do(open, mount.root / "file", "r+")
    second = await mount.do(open, mount.root / "file", "r+")
    try:
        await mount.do(fcntl.flock, first, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError):
            await mount.do(fcntl.flock, second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        await mount.do(fcntl.lockf, first, fcntl.LOCK_EX)
    finally:
        await mount.do(first.close)
        await mount.do(second.close)


@on_mount()
async def test_the_pods_changes_and_ours_come_together(mount: Mounted) -> None:
    path = mount.root / "file"
    await mount.do(path.write_text, "ours")
    (mount.pod / "file").write_text("theirs, which is longer")
    await trio.sleep(LIFETIME_S + 0.05)
    assert await mount.do(path.read_text) == "theirs, which is longer"

    def overwrite() -> None:
        with open(path, "r+b", buffering=0) as file:
            file.write(b"OURS")
            (mount.pod / "file").write_bytes(b"theirs again")
        with open(path, "rb") as file:
            assert file.read() in (b"theirs again", b"OURSrs, which is longer")

    await mount.do(overwrite)
    await trio.sleep(LIFETIME_S + 0.05)
    assert await mount.do(path.read_text) == "theirs again"


@on_mount()
async def test_programs_that_save_by_renaming(mount: Mounted) -> None:
    (mount.pod / "file").write_text("hello world\n")
    assert await mount.shell("sed -i s/hello/bye/ file && cat file && ls -A") == "bye world\nfile\n"
    assert await mount.shell("printf 'a\\nappended\\n.\\nw\\nq\\n' | ed -s file; cat file") == "bye world\nappended\n"
    assert await mount.shell(
        "cp -a file copy && cmp file copy && mv -f copy file && ls -A && tar cf - . | tar tf -"
    ) == ("file\n./\n./file\n")


@on_mount()
async def test_a_directory_is_filled_and_emptied(mount: Mounted) -> None:
    (mount.pod / "many").mkdir()

    def make() -> None:
        for number in range(300):
            (mount.root / f"many/{number}").write_text(str(number))
        assert len(os.listdir(mount.root / "many")) == 300
        for number in range(300):
            (mount.root / f"many/{number}").unlink()
        os.rmdir(mount.root / "many")

    await mount.do(make)
    assert os.listdir(mount.pod) == []
    assert len(mount.tree.serving.inodes) < 400


@on_mount()
async def test_whoever_has_the_lock_sees_what_the_last_one_wrote(mount: Mounted) -> None:
    (mount.pod / "counter").touch()
    (mount.pod / "long").write_bytes(bytes(200_000))

    def count(_: int) -> None:
        with open(mount.root / "counter", "r+") as file, open(mount.root / "long", "rb") as long:
            fcntl.flock(file, fcntl.LOCK_EX)
            value = int(file.read() or 0)
            assert long.read(1) == b"%c" % (value % 256)
            file.seek(0)
            file.write(str(value + 1))
            file.flush()
            with open(mount.root / "long", "r+b") as same:
                same.write(b"%c" % ((value + 1) % 256))

    def count_together() -> None:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(count, range(300)))

    await mount.do(count_together)
    assert (mount.pod / "counter").read_text() == "300"


@on_mount(["agent"])
async def test_names_are_exchanged(mount: Mounted) -> None:
    (mount.pod / "a").write_text("a")
    (mount.pod / "b").mkdir()
    (mount.pod / "b/inside").write_text("inside")

    def check() -> None:
        assert (mount.root / "a").read_text() == "a"
        assert (mount.root / "b/inside").read_text() == "inside"
        for _ in range(3):
            assert _libc.renameat2(-1, bytes(mount.root / "a"), -1, bytes(mount.root / "b"), RENAME_EXCHANGE) == 0
            names = ("a", "b") if (mount.pod / "a").is_dir() else ("b", "a")
            assert (mount.root / names[0] / "inside").read_text() == "inside"
            assert (mount.root / names[1]).read_text() == "a"
        assert _libc.renameat2(-1, bytes(mount.root / "a"), -1, bytes(mount.root / "b"), RENAME_NOREPLACE) == -1
        assert ctypes.get_errno() == errno.EEXIST

    await mount.do(check)


@on_mount()
async def test_a_working_directory_that_is_removed(mount: Mounted) -> None:
    assert await mount.shell(
        "mkdir gone; cd gone; rmdir ../gone; stat -c %h .; touch x; ls; pwd -P; mkdir ../gone; stat -c %h .;"
        "touch ../gone/y && ls ../gone"
    ) == (
        "0\ntouch: cannot touch 'x': No such file or directory\n"
        "pwd: error retrieving current directory: getcwd: cannot access parent directories: No such file or directory\n"
        "0\ny\n"
    )
