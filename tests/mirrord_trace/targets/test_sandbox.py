from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import textwrap
import uuid
from pathlib import Path

import pytest

from mirrord_trace.errors import Failure
from mirrord_trace.targets.sandbox import SandboxPod
from tests.conformance.pods import ConformancePod
from tests.mirrord_trace.targets.clients import NO_CAPABILITIES


def processes_with(marker: str) -> list[int]:
    """Processes of this machine in whose arguments a text occurs."""
    found = []
    for directory in Path("/proc").iterdir():
        if directory.name.isdecimal():
            try:
                if marker.encode() in (directory / "cmdline").read_bytes():
                    found.append(int(directory.name))
            except OSError:
                continue
    return found


def wait_for_end(pidfd: int, timeout_s: float) -> bool:
    return bool(select.select([pidfd], [], [], timeout_s)[0])


def test_files_exist_in_the_pod_only_and_beside_the_machines_own() -> None:
    contents = {
        "/etc/resolv.conf": b"nameserver 198.18.0.53\n",
        "/etc/made/for/tests": bytes(range(256)),
        "/made-for-tests/file": b"x" * 100_000,
        "/usr/made-for-tests": b"",
    }
    before = Path("/etc/resolv.conf").read_bytes()
    with ConformancePod(hostname="files-0", files=contents) as pod:
        for path, content in contents.items():
            assert Path(f"/proc/{pod.pid}/root{path}").read_bytes() == content
        assert pod.run(["cat", "/etc/passwd"]).stdout == Path("/etc/passwd").read_bytes()
        inside = f"/proc/{pod.pid}/root"
        assert {*os.listdir(f"{inside}/etc")} == {*os.listdir("/etc"), "made"}
        assert {*os.listdir(f"{inside}/usr/bin")} == {*os.listdir("/usr/bin")}
        assert Path("/etc/resolv.conf").read_bytes() == before
        assert not Path("/made-for-tests").exists()
        assert not Path("/usr/made-for-tests").exists()


def test_host_name_addresses_and_environment_are_the_pods() -> None:
    environment = {"GREETING": "grüße", "EMPTY": ""}
    with ConformancePod(hostname="web-0", addresses=["198.18.0.20", "fd00:198:18::20"], environment=environment) as pod:
        environ = Path(f"/proc/{pod.pid}/environ").read_bytes()
        assert sorted(environ.split(b"\0")) == sorted([b"", "GREETING=grüße".encode(), b"EMPTY="])
        assert pod.run(["uname", "-n"]).stdout == b"web-0\n"
        program = """
            import socket
            for family, host in (socket.AF_INET, "198.18.0.20"), (socket.AF_INET6, "fd00:198:18::20"):
                socket.socket(family).bind((host, 0))
            try:
                socket.socket().connect(("192.0.2.1", 80))
            except OSError as error:
                print(error.strerror)
        """
        done = pod.run([sys.executable, "-I", "-c", textwrap.dedent(program)])
        assert (done.stdout, done.stderr) == (b"Network is unreachable\n", b"")
    assert socket.gethostname() != "web-0"


def test_neighbours_are_called_from_the_pods_address() -> None:
    program = """
        import socket
        with socket.create_server(("198.18.0.30", 80)), socket.create_connection(("198.18.0.30", 80)) as client:
            print(client.getsockname()[0], client.getpeername()[0])
    """
    with ConformancePod(hostname="web-0", addresses=["198.18.0.20"], neighbours=["198.18.0.30"]) as pod:
        done = pod.run([sys.executable, "-I", "-c", textwrap.dedent(program)])
    assert (done.stdout, done.stderr) == (b"198.18.0.20 198.18.0.30\n", b"")


def test_programs_are_ready_when_the_pod_is_and_end_with_it() -> None:
    marker = uuid.uuid4().hex
    with SandboxPod(hostname="x", programs=[["sh", "-c", "echo up; kill -STOP $$", marker]] * 2) as pod:
        assert pod.log().count("up") == 2
        assert len(processes_with(marker)) == 2
    assert processes_with(marker) == []


def test_a_program_that_ends_early_is_a_failure_with_its_last_words() -> None:
    with pytest.raises(Failure, match="ended before it was ready") as caught:
        SandboxPod(hostname="x", programs=[["sh", "-c", "echo the reason >&2; exit 1"]]).__enter__()
    assert "the reason" in str(caught.value.advice)


def test_a_program_that_does_not_exist_is_a_failure() -> None:
    with pytest.raises(Failure, match="No such file"):
        SandboxPod(hostname="x", programs=[["/no/such/program"]]).start()


CREATOR = """
    import os, sys
    from mirrord_trace.targets.sandbox import SandboxPod
    program = ["sh", "-c", "echo up; kill -STOP $$", sys.stdin.readline().strip()]
    with SandboxPod(hostname="x", programs=[program]) as pod:
        print(pod.pid, flush=True)
        sys.stdin.read()
"""


@pytest.mark.parametrize("rights", [[], NO_CAPABILITIES], ids=["root", "ordinary-user"])
@pytest.mark.parametrize("victim", ["creator", "outer", "first"])
def test_kill_9_leaves_nothing(rights: list[str], victim: str) -> None:
    marker = uuid.uuid4().hex
    creator = subprocess.Popen(
        [*rights, sys.executable, "-c", textwrap.dedent(CREATOR)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with creator:
        assert creator.stdin is not None
        assert creator.stdout is not None
        creator.stdin.write(marker.encode() + b"\n")
        creator.stdin.flush()
        first = int(creator.stdout.readline())
        status = Path(f"/proc/{first}/status").read_text()
        outer = int(status.partition("PPid:\t")[2].partition("\n")[0])
        (program,) = processes_with(marker)
        watched = [os.pidfd_open(pid) for pid in (first, outer, program)]
        os.kill({"creator": creator.pid, "outer": outer, "first": first}[victim], signal.SIGKILL)
        assert all(wait_for_end(pidfd, 5) for pidfd in watched)
        for pidfd in watched:
            os.close(pidfd)
        creator.kill()
    assert processes_with(marker) == []


def test_an_ordinary_user_is_root_in_the_pod() -> None:
    program = """
        from tests.conformance.pods import ConformancePod
        with ConformancePod(
            hostname="user-0", addresses=["198.18.0.20"], files={"/etc/hostname": b"user-0"}, far_side=True
        ) as pod:
            print(pod.run(["sh", "-c", "id -u; hostname; cat /etc/hostname"]).stdout.decode())
    """
    done = subprocess.run(
        [*NO_CAPABILITIES, sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=30,
        check=False,
    )
    assert (done.stdout, done.stderr) == (b"0\nuser-0\nuser-0\n", b"")
