"""However a session's process ends, and at whatever stage, no rule of it stays, and those of others do."""

from __future__ import annotations

import itertools
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest

from mirrord_agent.incoming.redirects import Lack
from mirrord_trace.supervisor.descent import children_of
from tests.mirrord_agent.incoming.networks import POD, SHORT_S, Network, Networks, network, pod_and_outside
from tests.mirrord_agent.incoming.sessions import PORT, kernels, port_of, reaches, session
from tests.waiting import has_ended, holds_within

STAGES = ("begins", "guardian", "table", "tcp", "udp", "removed", "closed")
HOLDER = "tests.mirrord_agent.incoming.redirects_holder"


@attrs.define
class Holder:
    """A running `redirects_holder`."""

    process: subprocess.Popen[bytes]
    pod: Network
    stage: str = ""

    def reach(self, stage: str) -> None:
        while self.stage != stage:
            if self.stage:
                self.say("go on")
            self.stage = self._hear()

    def say(self, wish: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{wish}\n".encode())
        self.process.stdin.flush()

    def _hear(self) -> str:
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], SHORT_S)[0]
        return self.process.stdout.readline().decode().strip()

    def guardian(self) -> int:
        (guardian,) = children_of(self.process.pid)
        return guardian

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        self.process.send_signal(number)
        self.process.wait(SHORT_S)


@contextmanager
def holder(pod: Network, order: int = 1, port: int = 4000, lacking: Sequence[Lack] = ()) -> Iterator[Holder]:
    command = [sys.executable, "-m", HOLDER, str(order), str(port), *(lack.name for lack in lacking)]
    with pod.start(command) as process:
        try:
            yield Holder(process, pod)
        finally:
            process.kill()


def nothing_is_left(pod: Network, lacking: Sequence[Lack]) -> bool:
    """Where the kernel sees to it, it is gone with the process; a guardian takes its time."""
    if Lack.OWNERS in lacking:
        return holds_within(SHORT_S, lambda: pod.ruleset() == "")
    return pod.ruleset() == ""


@pytest.fixture
def pod() -> Iterator[Network]:
    with network() as made:
        yield made


@kernels
@pytest.mark.parametrize("stage", STAGES)
def test_kill_9_at_any_stage(pod: Network, lacking: Sequence[Lack], stage: str) -> None:
    if stage == "guardian" and Lack.OWNERS not in lacking:
        stage = "table"
    with holder(pod, lacking=lacking) as running:
        running.reach(stage)
        assert ("mirrord-trace-1" in pod.ruleset()) == (stage not in ("begins", "guardian", "closed"))
        running.kill()
        assert nothing_is_left(pod, lacking)


@kernels
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGSEGV])
def test_other_signals(pod: Network, lacking: Sequence[Lack], number: signal.Signals) -> None:
    with holder(pod, lacking=lacking) as running:
        running.reach("udp")
        running.kill(number)
        assert nothing_is_left(pod, lacking)


@kernels
def test_kill_9_of_its_whole_process_group(pod: Network, lacking: Sequence[Lack]) -> None:
    with pod.entered():
        process = subprocess.Popen(
            [sys.executable, "-m", HOLDER, "1", "4000", *(lack.name for lack in lacking)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
    with process:
        Holder(process, pod).reach("udp")
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(SHORT_S)
        assert nothing_is_left(pod, lacking)


@kernels
def test_kill_9_while_it_is_changing_ports(pod: Network, lacking: Sequence[Lack]) -> None:
    """At some moment; it was well begun."""
    code = """
import sys
from mirrord_agent.incoming.redirects import Lack, Redirects
redirects = Redirects.open(1, lacking=[Lack[name] for name in sys.argv[1:]])
print(flush=True)
while True:
    for protocol in ("tcp", "udp"):
        redirects.add(80, 4000, protocol)
        redirects.remove(80, protocol)
"""
    for _ in range(5):
        with pod.start([sys.executable, "-c", code, *(lack.name for lack in lacking)]) as process:
            assert process.stdout is not None
            process.stdout.readline()
            process.kill()
        assert nothing_is_left(pod, lacking)


@kernels
@pytest.mark.parametrize(("first", "second"), [(1, 2), (2, 1)], ids=["earlier dies", "later dies"])
def test_of_two_sessions_one_dies(first: int, second: int, lacking: Sequence[Lack]) -> None:
    with pod_and_outside() as networks, networks.pod.listen(4, PORT) as target:
        pod = networks.pod
        with (
            pod.listen(4) as listener,
            holder(pod, first, port=1, lacking=lacking) as dying,
            session(pod, second, lacking) as living,
        ):
            living.add(PORT, port_of(listener))
            dying.reach("udp")
            both = pod.ruleset()
            assert f"mirrord-trace-{first}" in both
            dying.kill()
            assert holds_within(SHORT_S, lambda: f"mirrord-trace-{first}" not in pod.ruleset())
            assert f"mirrord-trace-{second}" in pod.ruleset()
            with networks.outside.connect(POD[4], PORT) as client:
                reaches(listener, client).close()
        assert pod.ruleset() == ""
        with networks.outside.connect(POD[4], PORT) as client:
            reaches(target, client).close()


@kernels
@pytest.mark.parametrize("order", list(itertools.permutations([1, 2, 3])), ids=str)
def test_sessions_die_in_any_order(pod: Network, order: Sequence[int], lacking: Sequence[Lack]) -> None:
    with holder(pod, 1, lacking=lacking) as one, holder(pod, 2, lacking=lacking) as two, holder(pod, 3) as three:
        for running in (one, two, three):
            running.reach("udp")
        for number in order:
            {1: one, 2: two, 3: three}[number].kill()
            assert holds_within(SHORT_S, lambda number=number: f"mirrord-trace-{number}" not in pod.ruleset())  # type: ignore[misc]
        assert pod.ruleset() == ""


CLIENTS = 100
WITH_CONNECTIONS = """
import os, socket, sys, threading, time
from mirrord_agent.incoming.redirects import Lack, Redirects
place = os.open(os.devnull, os.O_RDONLY)
occupied = [os.open(os.devnull, os.O_RDONLY) for _ in range(50)]
redirects = Redirects.open(1, descriptor=place, lacking=[Lack[name] for name in sys.argv[1:]])
for _ in range(10):
    threading.Thread(target=time.sleep, args=(1000,)).start()
for descriptor in occupied:
    os.close(descriptor)  # connections get lower numbers than the socket would have without a place
listener = socket.create_server(("", 0), backlog=1000)
redirects.add(80, listener.getsockname()[1])
print("ready", flush=True)
connections = [listener.accept()[0] for _ in range(100)]
print("accepted", flush=True)
sys.stdin.read()
"""


@kernels
def test_kill_9_with_connections_open(networks: Networks, lacking: Sequence[Lack]) -> None:
    """Their clients learn of it, those included that only listen, and can connect to the target again."""
    pod, outside = networks.pod, networks.outside
    with (
        pod.listen(4, PORT) as target,
        pod.start([sys.executable, "-c", WITH_CONNECTIONS, *(lack.name for lack in lacking)]) as process,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        clients = [outside.connect(POD[4], PORT) for _ in range(CLIENTS)]
        assert process.stdout.readline() == b"accepted\n"
        for client in clients[::2]:
            client.send(b"nobody reads this")
        process.kill()
        process.wait(SHORT_S)
        for client in clients:
            try:
                assert client.recv(16) == b""
            except ConnectionResetError:
                pass
            client.close()
        assert nothing_is_left(pod, lacking)
        with outside.connect(POD[4], PORT) as client:
            reaches(target, client).close()


# Where the kernel has no owners.

GUARDED = (Lack.OWNERS,)


def test_the_guardian_sees_that_the_main_thread_has_ended(pod: Network) -> None:
    """While another of the process keeps its descriptors open, as one does that waits for a disk."""
    with holder(pod, lacking=GUARDED) as running:
        running.reach("udp")
        guardian = running.guardian()
        running.say("leave")
        assert nothing_is_left(pod, GUARDED)
        assert holds_within(SHORT_S, lambda: has_ended(guardian))
        assert running.process.poll() is None


def test_the_guardian_keeps_nothing_open_and_to_itself(pod: Network) -> None:
    with holder(pod, lacking=GUARDED) as running:
        running.reach("udp")
        guardian = Path(f"/proc/{running.guardian()}")
        links = {int(entry.name): os.readlink(entry) for entry in (guardian / "fd").iterdir()}
        assert [links.pop(number).partition(":")[0] for number in range(3)] == ["pipe", "pipe", "/dev/null"]
        assert sorted(link.partition("[")[0] for link in links.values()) == ["anon_inode:", "socket:"]
        assert os.readlink(guardian / "cwd") == "/"
        assert os.getsid(int(guardian.name)) == int(guardian.name)


def test_the_guardian_does_not_heed_others(pod: Network) -> None:
    with holder(pod, lacking=GUARDED) as running:
        running.reach("udp")
        guardian = running.guardian()
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            os.kill(guardian, number)
        running.reach("removed")
        assert not has_ended(guardian)
        assert "mirrord-trace-1" in pod.ruleset()
        running.kill()
        assert nothing_is_left(pod, GUARDED)


def test_it_does_without_a_guardian_that_was_killed(pod: Network) -> None:
    with holder(pod, lacking=GUARDED) as running:
        running.reach("udp")
        os.kill(running.guardian(), signal.SIGKILL)
        running.reach("closed")
        assert pod.ruleset() == ""


def test_what_both_left_the_next_session_replaces(pod: Network) -> None:
    with holder(pod, lacking=GUARDED) as running:
        running.reach("udp")
        os.kill(running.guardian(), signal.SIGKILL)
        running.kill()
    assert "80 : 4000" in pod.ruleset()
    with session(pod):
        assert "80 : 4000" not in pod.ruleset()
    assert pod.ruleset() == ""


def test_a_guardian_that_cannot_start(pod: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(OSError, match="the guardian of the redirects did not start"), session(pod, lacking=GUARDED):
        pass
    assert pod.ruleset() == ""
