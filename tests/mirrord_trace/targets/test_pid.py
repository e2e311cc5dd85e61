from __future__ import annotations

import io
import os
import select
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from mirrord_trace.cli.progress import reporter_for
from mirrord_trace.errors import Failure
from mirrord_trace.session import Session, open_session
from mirrord_trace.targets.pid import ProcessTarget
from mirrord_trace.targets.sandbox import SandboxPod
from tests.mirrord_trace.targets.clients import NO_CAPABILITIES, OPEN_AND_TELL, finish, start
from tests.rights import as_user


@pytest.fixture
def pod() -> Iterator[SandboxPod]:
    with SandboxPod(hostname="web-0", files={"/etc/hostname": b"web-0\n"}, environment={"GREETING": "hello"}) as pod:
        yield pod


@asynccontextmanager
async def begin_session(pid: int) -> AsyncIterator[Session]:
    reporter = reporter_for(io.TextIOWrapper(io.BytesIO(), "utf-8"))
    async with ProcessTarget(pid).open(reporter) as link, open_session(link.stream, link.secret) as session:
        yield session


def test_a_session_with_the_process_and_nothing_left_behind(pod: SandboxPod) -> None:
    progress = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True)

    async def main() -> frozenset[int]:
        async with ProcessTarget(pod.pid).open(reporter_for(progress)) as link:
            assert link.target_name.startswith(f"pid/{pod.pid} (python")
            async with open_session(link.stream, link.secret) as session:
                assert session.facts.hostname == "web-0"
                assert await session.environment() == {b"GREETING": b"hello"}
                assert (await session.read_file(b"/etc/hostname")).data == b"web-0\n"
            return link.agent_pids

    (agent,) = trio.run(main)
    assert not Path(f"/proc/{agent}").exists()
    progress.seek(0)
    assert f"pid/{pod.pid}" in progress.read()


def test_modules_in_the_users_folder_are_not_the_agents(
    pod: SandboxPod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "select.py").write_text("raise SystemExit('this is the user\\'s own module')")
    monkeypatch.chdir(tmp_path)

    async def main() -> None:
        async with begin_session(pod.pid):
            pass

    trio.run(main)


def test_no_such_process() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    status, output = finish(start(f"pid/{ended.pid}"))
    assert (status, f"there is no process {ended.pid}" in output, "ps -e" in output) == (3, True, True)


def test_a_process_of_which_only_the_exit_status_is_left() -> None:
    with subprocess.Popen(["true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        status, output = finish(start(f"pid/{process.pid}"))
    assert (status, "(true) has ended" in output) == (3, True)


def test_a_thread_is_no_process(pod: SandboxPod) -> None:
    program = "import threading; threading.Thread(target=input).start(); print(1, flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        thread = max(map(int, os.listdir(f"/proc/{process.pid}/task")))
        status, output = finish(start(f"pid/{thread}"))
    assert (status, "cannot serve" in output, "thread" in output) == (3, True, True)


def test_an_ordinary_user_is_told_what_is_missing_and_the_sudo_line() -> None:
    rights = as_user(reads_everything=True) if os.geteuid() == 0 else []
    status, output = finish(start("pid/1", rights=rights))
    assert status == 3
    assert "no permission to enter pid/1 (" in output
    assert "belongs to uid 0" in output
    assert "CAP_SYS_PTRACE" in output
    assert "mirrord-trace run --sudo -t pid/1 -- COMMAND" in output


def test_a_root_without_capabilities_is_told_which() -> None:
    status, output = finish(start("pid/1", rights=["unshare", "--user", "--map-root-user"]))
    assert status == 3
    assert "SYS_PTRACE and SYS_ADMIN" in output
    assert "sudo" not in output


def test_the_owner_of_a_pods_user_namespace_needs_no_rights() -> None:
    program = """
        import subprocess, sys
        from mirrord_trace.targets.sandbox import SandboxPod
        with SandboxPod(hostname="mine-0") as pod:
            subprocess.run([sys.executable, "-c", sys.argv[1], f"pid/{pod.pid}"])
    """
    done = subprocess.run(
        [*NO_CAPABILITIES, sys.executable, "-c", textwrap.dedent(program), OPEN_AND_TELL],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        timeout=20,
        check=True,
    )
    assert b" mine-0 " in done.stdout, done


def test_an_agent_that_is_killed_before_it_answers(pod: SandboxPod) -> None:
    async def main() -> None:
        async with ProcessTarget(pod.pid).open(reporter_for(io.TextIOWrapper(io.BytesIO(), "utf-8"))) as link:
            for pid in link.agent_pids:
                os.kill(pid, signal.SIGKILL)
            async with open_session(link.stream, link.secret):
                pass

    with pytest.raises(Failure, match=f"the agent for pid/{pod.pid} .* is gone"):
        trio.run(main)


def test_an_agent_that_cannot_run_leaves_its_last_words(pod: SandboxPod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHOME", "/no/such/folder")

    async def main() -> None:
        async with begin_session(pod.pid):
            pass

    with pytest.raises(Failure) as caught:
        trio.run(main)
    assert "last words" in str(caught.value.advice)


def test_kill_9_of_the_client_ends_the_agent(pod: SandboxPod) -> None:
    client = start(f"pid/{pod.pid}", "wait")
    with client:
        assert client.stdout is not None
        agent = os.pidfd_open(int(client.stdout.readline().split()[-1]))
        client.kill()
        assert select.select([agent], [], [], 5)[0]
        os.close(agent)


SUDO = """\
#!/bin/sh
# Stands in for sudo: grants what it is asked for unless DENY is set, with an environment of its own.
case $1 in --validate) exit ${DENY:-0};; esac
while [ "$1" != -- ]; do shift; done
shift
exec env -i PATH=/usr/bin:/bin "$@"
"""


@pytest.fixture
def sudo_path(tmp_path: Path) -> str:
    sudo = tmp_path / "sudo"
    sudo.write_text(SUDO)
    sudo.chmod(0o755)
    return f"{tmp_path}{os.pathsep}{os.environ['PATH']}"


def test_through_sudo(pod: SandboxPod, sudo_path: str) -> None:
    status, output = finish(start(f"pid/{pod.pid}", "sudo", path=sudo_path))
    assert (status, " web-0 " in output) == (0, True), output


def test_sudo_that_denies(pod: SandboxPod, sudo_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DENY", "1")
    status, output = finish(start(f"pid/{pod.pid}", "sudo", path=sudo_path))
    assert (status, "sudo refused" in output) == (3, True), output


def test_no_sudo(pod: SandboxPod, tmp_path: Path) -> None:
    status, output = finish(start(f"pid/{pod.pid}", "sudo", path=str(tmp_path)))
    assert (status, "Install sudo" in output) == (3, True), output
