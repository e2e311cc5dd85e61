"""What programs see of files that they only read, through a real mount."""

import hashlib
import os
import stat
import sys
from pathlib import Path
from typing import BinaryIO

import pytest
import trio

from mirrord_trace.tree.base import LIFETIME_S, Need
from tests.mirrord_trace.tree.mounted import Mounted, on_mount

MIB = 1 << 20


def fields(path: Path) -> tuple[int, ...]:
    """What stat(2) tells, but for the device."""
    found = os.lstat(path)
    return (
        found.st_mode,
        found.st_ino,
        found.st_nlink,
        found.st_uid,
        found.st_gid,
        found.st_size,
        found.st_blocks,
        found.st_blksize,
        found.st_mtime_ns,
        found.st_ctime_ns,
    )


def md5sum(data: bytes) -> str:
    """What md5sum(1) prints of its standard input."""
    return f"{hashlib.md5(data).hexdigest()}  -\n"


def append(path: Path, text: str) -> None:
    with open(path, "a") as file:
        file.write(text)


def opened_to_read(path: Path) -> BinaryIO:
    return open(path, "rb")


@on_mount()
async def test_attributes_are_those_of_the_pod(mount: Mounted) -> None:
    (mount.pod / "file").write_bytes(b"x" * 5000)
    (mount.pod / "file").chmod(0o4751)
    os.chown(mount.pod / "file", 1234, 5678)
    os.link(mount.pod / "file", mount.pod / "other")
    (mount.pod / "directory").mkdir()
    (mount.pod / "link").symlink_to("nowhere")
    os.mkfifo(mount.pod / "fifo")
    os.mknod(mount.pod / "device", 0o620 | stat.S_IFCHR, os.makedev(4, 7))
    for name in ("file", "other", "directory", "link", "fifo", "device", "."):
        assert await mount.do(fields, mount.root / name) == fields(mount.pod / name), name
    device = await mount.do(os.stat, mount.root / "device")
    assert device.st_rdev == os.makedev(4, 7)


@on_mount()
async def test_content_of_files_of_any_length_in_any_order(mount: Mounted) -> None:
    lengths = [0, 1, 4095, 4096, 4097, 65536, 65537, 300_000, MIB - 1, MIB, MIB + 1, 11 * MIB + 17]
    for length in lengths:
        (mount.pod / str(length)).write_bytes(os.urandom(length))
    for length in lengths:
        assert await mount.do((mount.root / str(length)).read_bytes) == (mount.pod / str(length)).read_bytes(), length
    content = (mount.pod / str(lengths[-1])).read_bytes()

    def jump() -> None:
        with open(mount.root / str(lengths[-1]), "rb", buffering=0) as file:
            for offset in (7 * MIB, 5, 11 * MIB, 3 * MIB - 1, 9 * MIB + 12345, 11 * MIB + 16, 12 * MIB):
                assert os.pread(file.fileno(), 70_000, offset) == content[offset : offset + 70_000], offset

    await mount.do(jump)


@on_mount()
async def test_a_file_is_mapped(mount: Mounted) -> None:
    content = os.urandom(3 * MIB)
    (mount.pod / "file").write_bytes(content)
    told: list[str] = []
    mount.tree.on_mapped = lambda: told.append("opened")

    script = (
        "import mmap, sys\n"
        "with open('file', 'rb') as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as memory:\n"
        f"    sys.stdout.buffer.write(memory[{2 * MIB}:] + memory[:100])\n"
    )
    (mount.pod / "script").write_text(script)
    assert await mount.shell(f"{sys.executable} $POD/script | md5sum") == md5sum(content[2 * MIB :] + content[:100])
    await mount.do((mount.root / "file").read_bytes)
    assert told == ["opened"]


@on_mount()
async def test_sendfile_splice_and_copy_file_range(mount: Mounted) -> None:
    content = os.urandom(200_000)
    (mount.pod / "file").write_bytes(content)

    def copy(how: str) -> bytes:
        with open(mount.root / "file", "rb") as source, open(target_of(how), "wb") as target:
            if how == "sendfile":
                while os.sendfile(target.fileno(), source.fileno(), None, 1 << 20):
                    pass
            elif how == "copy_file_range":
                while os.copy_file_range(source.fileno(), target.fileno(), 1 << 20):
                    pass
            else:
                reading, writing = os.pipe()
                while moved := os.splice(source.fileno(), writing, 1 << 16):
                    assert os.splice(reading, target.fileno(), moved) == moved
                os.close(reading)
                os.close(writing)
        return target_of(how).read_bytes()

    def target_of(how: str) -> Path:
        return mount.root / how if how == "copy_file_range" else mount.pod / how  # it is for one file system only

    for how in ("sendfile", "copy_file_range", "splice"):
        assert await mount.do(copy, how) == content, how


@on_mount()
async def test_links_stay_inside(mount: Mounted) -> None:
    (mount.pod / "etc").mkdir()
    (mount.pod / "etc/passwd").write_text("the pod's")
    (mount.pod / "etc/deep").mkdir()
    links = {
        "absolute": "/etc/passwd",
        "relative": "etc/passwd",
        "etc/deep/up": "../passwd",
        "etc/deep/far-up": "../../../../../../etc/passwd",
        "etc/deep/round": "../deep/../../etc/./passwd",
        "etc/deep/absolute-up": "/../../etc/passwd",
        "directory": "/etc/deep",
        "through": "directory/../passwd",
        "slash": "//etc//passwd",
    }
    for name, target in links.items():
        (mount.pod / name).symlink_to(target)
    for name in links:
        if name != "directory":
            assert await mount.do((mount.root / name).read_text) == "the pod's", name
    assert await mount.do((mount.root / "directory/far-up").read_text) == "the pod's"
    (mount.pod / "root").symlink_to("/")
    assert sorted(await mount.do(os.listdir, mount.root / "root/root")) == sorted(os.listdir(mount.pod))
    (mount.pod / "loop").symlink_to("/loop")
    (mount.pod / "dangling").symlink_to("/not/there/../x")
    assert await mount.shell("cat loop; cat dangling; stat -c %N dangling | wc -l") == (
        "cat: loop: Too many levels of symbolic links\ncat: dangling: No such file or directory\n"
        "stat: cannot read symbolic link 'dangling': No such file or directory\n1\n"
    )


@on_mount()
async def test_names_of_bytes_and_long_ones(mount: Mounted) -> None:
    names = [b"\xff\xfe not utf-8", b"new\nline", b"x" * 255, "ümläut".encode(), b"-rf", b" "]
    for name in names:
        (mount.pod / os.fsdecode(name)).write_bytes(name)
    assert sorted(map(os.fsencode, await mount.do(os.listdir, mount.root))) == sorted(names)
    for name in names:
        assert await mount.do((mount.root / os.fsdecode(name)).read_bytes) == name
    with pytest.raises(OSError, match="too long"):
        await mount.do(os.stat, mount.root / ("y" * 256))


@on_mount(["scratch"])
async def test_what_is_absent(mount: Mounted) -> None:
    (mount.pod / "file").write_text("")
    assert await mount.shell("cat nothing; cat file/x; ls nothing; cat .; echo x > .; cat < file/") == (
        "cat: nothing: No such file or directory\ncat: file/x: Not a directory\n"
        "ls: cannot access 'nothing': No such file or directory\ncat: .: Is a directory\n"
        "bash: line 1: .: Is a directory\nbash: line 1: file/: Not a directory\n"
    )
    asked = mount.files.asks["look"]
    for _ in range(3):
        assert not await mount.do((mount.root / "nothing").exists)
    assert mount.files.asks["look"] <= asked + 1


@on_mount()
async def test_what_others_change_is_seen_after_a_second(mount: Mounted) -> None:
    for name in ("replaced", "written", "removed", "retyped"):
        (mount.pod / name).write_text(f"old {name}")
    (mount.pod / "moved").mkdir()
    (mount.pod / "moved/inside").write_text("inside")
    for name in ("replaced", "written", "removed", "retyped", "moved/inside"):
        await mount.do((mount.root / name).read_text)
    assert not await mount.do((mount.root / "made").exists)
    (mount.pod / "new").write_text("new replaced")
    (mount.pod / "new").rename(mount.pod / "replaced")
    (mount.pod / "written").write_text("longer than before")
    (mount.pod / "removed").unlink()
    (mount.pod / "made").write_text("made")
    (mount.pod / "retyped").unlink()
    (mount.pod / "retyped").mkdir()
    (mount.pod / "moved").rename(mount.pod / "elsewhere")
    await trio.sleep(LIFETIME_S + 0.05)
    assert await mount.shell("cat replaced; cat written; cat removed; cat made; ls -d retyped/; cat moved/inside") == (
        "new replacedlonger than beforecat: removed: No such file or directory\nmaderetyped/\n"
        "cat: moved/inside: No such file or directory\n"
    )
    assert await mount.do((mount.root / "elsewhere/inside").read_text) == "inside"


@on_mount()
async def test_a_file_that_grows_is_followed(mount: Mounted) -> None:
    (mount.pod / "log").write_text("one\n")
    reader = await mount.do(open, mount.root / "log")
    try:
        assert await mount.do(reader.read) == "one\n"
        for line in ("two\n", "three\n"):
            append(mount.pod / "log", line)
            await trio.sleep(LIFETIME_S + 0.05)
            assert await mount.do(reader.read) == line
        (mount.pod / "log").rename(mount.pod / "log.1")
        (mount.pod / "log").write_text("another file\n")
        append(mount.pod / "log.1", "four\n")
        await trio.sleep(LIFETIME_S + 0.05)
        assert await mount.do(reader.read) == "four\n"
        assert (await mount.do(os.fstat, reader.fileno())).st_size == len("one\ntwo\nthree\nfour\n")
    finally:
        await mount.do(reader.close)


@on_mount(["scratch"])
async def test_a_file_stays_what_was_opened(mount: Mounted) -> None:
    big = os.urandom(5 * MIB)
    (mount.pod / "small").write_text("small")
    (mount.pod / "big").write_bytes(big)
    opened = [await mount.do(opened_to_read, mount.root / name) for name in ("small", "big")]
    await mount.files.until_handles_are(2)  # they have no name after this, but stay open
    (mount.pod / "small").unlink()
    (mount.pod / "big").unlink()
    (mount.pod / "big").write_bytes(b"another")
    await trio.sleep(LIFETIME_S + 0.05)
    for file, content in zip(opened, (b"small", big), strict=True):
        assert await mount.do(file.read) == content
        assert (await mount.do(os.fstat, file.fileno())).st_nlink == 0
        await mount.do(file.close)


@on_mount(["scratch"])
async def test_a_file_without_extended_attributes_is_not_asked_for_any(mount: Mounted) -> None:
    (mount.pod / "file").write_text("")
    with pytest.raises(OSError, match="No data available"):
        await mount.do(os.getxattr, mount.root / "file", "user.x")
    assert await mount.do(os.listxattr, mount.root / "file") == []
    assert not mount.files.asks["get_attribute"]
    assert not mount.files.asks["list_attributes"]


@on_mount(["scratch"])
async def test_a_sparse_giant_is_read_where_it_is_wanted(mount: Mounted) -> None:
    def look() -> bytes:
        with open(mount.pod / "giant", "wb") as giant:
            giant.truncate(10 << 30)
            os.pwrite(giant.fileno(), b"here", 7 << 30)
        with open(mount.root / "giant", "rb", buffering=0) as file:
            return os.pread(file.fileno(), 4, 7 << 30)

    assert await mount.do(look) == b"here"
    assert mount.files.asks["read"] < 4


@on_mount(may_write=False)
async def test_a_read_only_tree_refuses_as_a_read_only_mount(mount: Mounted) -> None:
    (mount.pod / "file").write_text("kept")
    file, new = mount.root / "file", mount.root / "new"

    def check() -> None:
        for action in (
            lambda: os.open(file, os.O_WRONLY),
            lambda: os.open(file, os.O_RDWR | os.O_TRUNC),
            lambda: os.open(new, os.O_CREAT | os.O_WRONLY),
            lambda: os.mkdir(new),
            lambda: os.symlink("a", new),
            lambda: os.link(file, new),
            lambda: os.rename(file, new),
            lambda: os.unlink(file),
            lambda: os.chmod(file, 0o600),
            lambda: os.truncate(file, 0),
        ):
            with pytest.raises(OSError, match="Read-only file system"):
                action()
        assert file.read_text() == "kept"

    await mount.do(check)
    assert os.listdir(mount.pod) == ["file"]


@on_mount()
async def test_many_readers_at_once(mount: Mounted) -> None:
    for number in range(200):
        (mount.pod / f"{number}").write_bytes(os.urandom(number * 997))
    sums = await mount.shell("ls | xargs -P 8 -n 5 md5sum | sort > $POD/../here; cd $POD; md5sum * | sort > ../there")
    assert sums == ""
    assert await mount.shell("cmp $POD/../here $POD/../there") == ""


@on_mount(["scratch"])
async def test_a_lost_session_fails_and_does_not_hang(mount: Mounted) -> None:
    (mount.pod / "file").write_bytes(bytes(3 * MIB))
    descriptor = await mount.do(os.open, mount.root / "file", os.O_RDONLY)
    mount.files.is_lost = True
    for action in (
        lambda: os.pread(descriptor, 10, 2 * MIB),
        lambda: os.stat(mount.root / "other"),
        lambda: os.listdir(mount.root),
    ):
        with pytest.raises(OSError, match="Input/output error"):
            await mount.do(action)
    assert await mount.tree.ensure(b"/whatever", Need.CONTENT) == os.fsencode(mount.root / "whatever")
    await mount.do(os.close, descriptor)
