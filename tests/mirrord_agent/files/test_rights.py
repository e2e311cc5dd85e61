"""Files are reached with the rights of the target's process. The agents here are root's; they may take any."""

import errno
import os
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from mirrord_agent import libc
from mirrord_agent.capabilities import Capability
from mirrord_agent.files.rights import Rights, check_rights, rights_of
from mirrord_agent.target import Target, TargetUnusable
from mirrord_trace.remote_files import Change, RemoteFiles
from mirrord_trace.session import AgentRefused
from tests.mirrord_agent.real import ALL_CAPABILITIES, process_with, session_with
from tests.mirrord_agent.support import in_trio
from tests.rights import as_user

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give rights away")


def bit(*capabilities: Capability) -> int:
    return sum(1 << capability.value for capability in capabilities)


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that everybody may enter; pytest's are closed to others."""
    with tempfile.TemporaryDirectory(prefix="mirrord-trace-rights-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.fixture
def tree(folder: Path) -> bytes:
    """Files of several owners, in a directory in which everybody may make more."""
    folder.chmod(0o777)
    for name, uid, gid, mode in (
        ("of-root", 0, 0, 0o600),
        ("of-user", 1000, 1000, 0o600),
        ("of-group", 0, 1000, 0o640),
        ("of-other-group", 0, 44, 0o640),
        ("for-all", 0, 0, 0o644),
    ):
        file = folder / name
        file.write_text(name)
        os.chown(file, uid, gid)
        file.chmod(mode)
    closed = folder / "closed"
    closed.mkdir()
    (closed / "file").write_text("x")
    closed.chmod(0o700)
    listed = folder / "listed"
    listed.mkdir()
    (listed / "file").write_text("x")
    listed.chmod(0o744)
    return os.fsencode(folder)


async def errno_of(files: RemoteFiles, path: bytes) -> int:
    """What opening for reading says, in both ways of asking for it; 0 when it succeeds."""
    looked = await files.look(path, follow=True, content_limit=100)
    number = 0
    try:
        (await files.open(path, os.O_RDONLY)).close()
    except OSError as error:
        number = error.errno or 0
    assert number == (looked.result.errno or looked.content_errno)
    return number


@in_trio
async def test_a_users_process_may_what_its_ids_and_groups_allow(tree: bytes) -> None:
    with process_with("1000 1000 44", 0) as pid:
        async with session_with(pid) as session:
            files = session.files
            names = (b"of-user", b"of-group", b"of-other-group", b"for-all")
            assert {await errno_of(files, tree + b"/" + name) for name in names} == {0}
            assert await errno_of(files, tree + b"/of-root") == errno.EACCES
            looked = await files.look(tree + b"/closed/file", follow=True)
            assert (looked.result.path, looked.result.errno) == (tree + b"/closed/file", errno.EACCES)
            assert [step.errno for step in looked.visited[:-1]] == [0] * (len(looked.visited) - 1)
            # A directory that may be read and not entered.
            (entry,) = [entry async for piece in files.list(tree + b"/listed") for entry in piece]
            assert (entry.name, entry.status) == (b"file", None)
            assert (await files.look(tree + b"/listed/..", follow=True)).result.errno == errno.EACCES
            await files.access(tree + b"/of-user", os.R_OK | os.W_OK)
            for path, mode in ((b"/of-root", os.R_OK), (b"/for-all", os.W_OK)):
                with pytest.raises(PermissionError):
                    await files.access(tree + path, mode)


@in_trio
async def test_what_a_users_process_makes_is_its_own(tree: bytes) -> None:
    with process_with("1000 1001", 0) as pid:
        async with session_with(pid) as session:
            files = session.files
            made = await files.open(tree + b"/made", os.O_WRONLY | os.O_CREAT, 0o644)
            assert (made.status.uid, made.status.gid) == (1000, 1001)
            directory = await files.make_directory(tree + b"/directory", 0o755)
            assert (directory.uid, directory.gid) == (1000, 1001)
            for number, ask in (
                (errno.EPERM, lambda: files.set(tree + b"/made", Change(uid=0))),
                (errno.EPERM, lambda: files.set(tree + b"/for-all", Change(mode=0o666))),
                (errno.EACCES, lambda: files.set(tree + b"/for-all", Change(size=0))),
                (errno.EPERM, lambda: files.make_node(tree + b"/device", stat.S_IFCHR | 0o666, os.makedev(1, 3))),
                (errno.EACCES, lambda: files.remove(tree + b"/closed/file", directory=False)),
            ):
                with pytest.raises(PermissionError) as error:
                    await ask()
                assert error.value.errno == number


@pytest.mark.parametrize(
    ("ids", "capabilities", "open_to"),
    [
        ("0 0", ALL_CAPABILITIES, {b"of-root", b"of-user", b"of-group", b"of-other-group", b"for-all"}),
        ("0 0", 0, {b"of-root", b"of-group", b"of-other-group", b"for-all"}),
        ("1000 1000", 0, {b"of-user", b"of-group", b"for-all"}),
        ("1000 1", 0, {b"of-user", b"for-all"}),
        ("2000 1 1000 44", 0, {b"of-group", b"of-other-group", b"for-all"}),
        (
            "2000 1",
            bit(Capability.DAC_READ_SEARCH),
            {b"of-root", b"of-user", b"of-group", b"of-other-group", b"for-all"},
        ),
    ],
)
def test_capabilities_count_as_far_as_the_target_has_them(
    tree: bytes, ids: str, capabilities: int, open_to: set[bytes]
) -> None:
    @in_trio
    async def test() -> None:
        with process_with(ids, capabilities) as pid:
            async with session_with(pid) as session:
                names = [name for name in os.listdir(tree) if name not in (b"closed", b"listed")]
                numbers = {name: await errno_of(session.files, tree + b"/" + name) for name in names}
        assert {name for name, number in numbers.items() if number == 0} == open_to
        assert set(numbers.values()) <= {0, errno.EACCES}

    test()


@in_trio
async def test_root_without_the_capability_gives_nothing_away(tree: bytes) -> None:
    with process_with("0 0", bit(Capability.DAC_OVERRIDE)) as pid:
        async with session_with(pid) as session:
            with pytest.raises(PermissionError):
                await session.files.set(tree + b"/of-user", Change(uid=0))
            with pytest.raises(PermissionError):
                await session.files.set(tree + b"/of-user", Change(mode=0o644))
    with process_with("0 0", bit(Capability.CHOWN, Capability.FOWNER)) as pid:
        async with session_with(pid) as session:
            assert (await session.files.set(tree + b"/of-user", Change(uid=0, mode=0o644))).uid == 0


@in_trio
async def test_a_denial_says_what_the_agent_lacks(tree: bytes) -> None:
    with process_with("0 0") as pid:
        prefix = ["setpriv", "--bounding-set=-chown,-dac_override"]
        async with session_with(pid, prefix) as session:
            with pytest.raises(PermissionError, match="the target has CAP_CHOWN, CAP_DAC_OVERRIDE, which the agent"):
                await session.files.set(tree + b"/of-user", Change(uid=5))
    with process_with("1000 1000", 0) as pid:
        async with session_with(pid) as session:
            with pytest.raises(PermissionError, match=r"denied$"):
                await session.files.open(tree + b"/of-root", os.O_RDONLY)


# An ordinary user's agent. It may read the Python that lies in a closed folder, which must not count for files.
AS_USER = as_user(1000, reads_everything=True)


@in_trio
async def test_an_ordinary_users_agent_serves_that_users_processes(tree: bytes) -> None:
    with process_with("1000 1000", 0) as pid:
        async with session_with(pid, AS_USER) as session:
            names = [name for name in os.listdir(tree) if name not in (b"closed", b"listed")]
            numbers = {name: await errno_of(session.files, tree + b"/" + name) for name in names}
    assert {name for name, number in numbers.items() if number == 0} == {b"of-user", b"of-group", b"for-all"}


@in_trio
async def test_groups_that_an_ordinary_users_agent_cannot_have_are_told(tree: bytes) -> None:
    with process_with("1000 1000 44", 0) as pid:
        async with session_with(pid, AS_USER) as session:
            with pytest.raises(PermissionError, match="the target has groups that take CAP_SETGID"):
                await session.files.open(tree + b"/of-other-group", os.O_RDONLY)


@in_trio
async def test_an_agent_that_may_not_have_the_ids_says_so() -> None:
    with process_with("1000 1000", 0) as pid:
        prefix = ["setpriv", "--bounding-set=-setuid,-setgid"]
        with pytest.raises(AgentRefused, match=r"uid 1000, gid 1000.*without CAP_SETUID and CAP_SETGID") as refused:
            async with session_with(pid, prefix):
                pytest.fail("the block must not begin")
        assert "files cannot be reached" in refused.value.message


def test_rights_that_cannot_be_had_for_another_reason_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups without a number in the target's user namespace, for one."""

    def refuse(groups: Sequence[int]) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(libc, "set_thread_groups", refuse)
    with process_with("1000 1001 7 5") as pid:
        target = Target.open(pid)
        with pytest.raises(TargetUnusable) as refused:
            check_rights(target)
        target.close()
    assert refused.value.goodbye.message == (
        f"files cannot be reached with the rights of process {pid} (uid 1000, gid 1001): Invalid argument"
    )


def test_a_thread_takes_rights_and_the_others_keep_theirs() -> None:
    before = (os.getgroups(), libc.capabilities(), Path("/proc/thread-self/status").read_text())
    seen: list[tuple[list[int], int, str]] = []

    def take() -> None:
        Rights(1000, 1001, frozenset({5, 6}), 0).take()
        seen.append((os.getgroups(), libc.capabilities().effective, Path("/proc/thread-self/status").read_text()))
        with pytest.raises(PermissionError):
            os.listdir("/root")
        # What leads to our own open files still does.
        with open("/proc/self/fd/0", "rb", buffering=0):
            pass

    (thread := threading.Thread(target=take)).start()
    thread.join()
    ((groups, effective, status),) = seen
    assert (sorted(groups), effective) == ([5, 6], 0)
    assert "Uid:\t0\t0\t0\t1000\n" in status
    assert "Gid:\t0\t0\t0\t1001\n" in status
    assert before[:2] == (os.getgroups(), libc.capabilities())
    os.listdir("/root")


def test_rights_are_read_from_the_process() -> None:
    with process_with("1000 1001 7 5", bit(Capability.FOWNER)) as pid:
        target = Target.open(pid)
        assert rights_of(target) == Rights(1000, 1001, frozenset({5, 7}), bit(Capability.FOWNER))
        target.close()


# User namespaces.

# It makes a user namespace whose ids 0 to 999 are ours from 100000 (users) and 200000 (groups) on, has in it the groups
# of its second argument, a group 7, and the user of its third, and the given folder as its root.
_IN_A_USER_NAMESPACE = """
import ctypes, os, sys
made, written, held = os.pipe(), os.pipe(), os.pipe()
child = os.fork()
if not child:
    assert ctypes.CDLL(None).unshare(0x10000000) == 0
    os.write(made[1], b"x")
    os.read(written[0], 1)
    os.setgroups([int(group) for group in sys.argv[2].split()])
    os.chroot(sys.argv[1])
    os.chdir("/")
    os.setresgid(7, 7, 7)
    user = int(sys.argv[3])
    os.setresuid(0, 0, 0)
    os.setresuid(user, user, user)
    print("ready", flush=True)
    sys.stdin.read()
    os._exit(0)
os.read(made[0], 1)
open(f"/proc/{child}/uid_map", "w").write("0 100000 1000")
open(f"/proc/{child}/gid_map", "w").write("0 200000 1000")
print(child, flush=True)
os.write(written[1], b"x")
os.waitpid(child, 0)
"""


@contextmanager
def process_in_a_user_namespace(root: Path, groups: str, user: int) -> Iterator[int]:
    command = [sys.executable, "-c", _IN_A_USER_NAMESPACE, str(root), groups, str(user)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert process.stdout.readline() == b"ready\n"
        try:
            yield pid
        finally:
            assert process.stdin is not None
            process.stdin.close()


@pytest.fixture
def mapped(folder: Path) -> Path:
    root = folder / "root"
    root.mkdir()
    os.chown(root, 100000, 200000)
    for name, uid, gid, mode in (
        ("own", 100000, 200000, 0o600),
        ("users", 100033, 200033, 0o600),
        ("outside", 33, 33, 0o600),
        ("outside-for-group", 33, 200005, 0o640),
        ("outside-for-root-group", 33, 0, 0o640),
        ("outside-for-all", 33, 33, 0o644),
    ):
        (root / name).write_text(name)
        os.chown(root / name, uid, gid)
        (root / name).chmod(mode)
    return root


async def owners(files: RemoteFiles, path: bytes) -> tuple[int, int]:
    status = (await files.look(path, follow=True)).result.status
    assert status is not None
    return status.uid, status.gid


@in_trio
async def test_in_a_user_namespace_ids_are_those_that_the_target_sees(mapped: Path) -> None:
    with process_in_a_user_namespace(mapped, "5", 0) as pid:
        async with session_with(pid) as session:
            files = session.files
            assert await owners(files, b"/own") == (0, 0)
            assert await owners(files, b"/users") == (33, 33)
            assert await owners(files, b"/outside") == (65534, 65534)
            assert await owners(files, b"/outside-for-group") == (65534, 5)
            # Its root is root over what has ids there, and over nothing else.
            readable = {name for name in os.listdir(mapped) if not await errno_of(files, b"/" + os.fsencode(name))}
            assert readable == {"own", "users", "outside-for-group", "outside-for-all"}
            await files.set(b"/users", Change(uid=1, gid=2))
            assert (os.stat(mapped / "users").st_uid, os.stat(mapped / "users").st_gid) == (100001, 200002)
            for number, path, change in (
                (errno.EINVAL, b"/users", Change(uid=1000)),
                (errno.EPERM, b"/outside", Change(uid=0)),
                (errno.EPERM, b"/outside", Change(mode=0o666)),
            ):
                with pytest.raises(OSError, match=r"\w") as error:
                    await files.set(path, change)
                assert error.value.errno == number
            await files.make_directory(b"/made", 0o700)
            assert (os.stat(mapped / "made").st_uid, os.stat(mapped / "made").st_gid) == (100000, 200007)


@in_trio
async def test_a_user_in_a_user_namespace(mapped: Path) -> None:
    with process_in_a_user_namespace(mapped, "", 33) as pid:
        async with session_with(pid) as session:
            readable = {name for name in os.listdir(mapped) if not await errno_of(session.files, b"/" + name.encode())}
            assert readable == {"users", "outside-for-all"}
            assert await session.files.mounts() == (), "none is below its root"
            assert b"PATH" in await session.environment()
