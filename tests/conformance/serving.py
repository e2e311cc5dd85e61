"""Servers of real programs: natively in a pod, and outside under the tool with the pod's traffic; clients are the same.

A case names a server and a client. The native half: the server runs in the pod, and clients talk to it. Then the pod
has another process of the same program on that port, named "target", and the server runs outside:
- steal: server and clients must say what they said natively, and the target hears of nobody;
- mirror: the server must say what it said natively, the clients what they said with "target" for the server's name, and
  the target what the server said natively: it is undisturbed. Nobody waits for the server there, so a connection may
  have ended before it looks: a case may name with `hasty` what it then need not say.

A server says "ready" on a line of its own once it listens, and what follows must not depend on time, process ids or
ephemeral ports. One that serves a number of connections ends by itself; others are ended with SIGTERM.
"""

from __future__ import annotations

import difflib
import os
import re
import select
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import attrs

from tests.conformance.harness import Outcome, descendants, nothing_left, tool_command
from tests.conformance.pods import ConformancePod

POD, POD_6 = "198.18.1.1", "fd00:198:18:1::1"
"""The pod's addresses on the way to its clients."""

CLIENTS, CLIENTS_6 = "198.18.1.2", "fd00:198:18:1::2"
PROCESS, TARGET = "process", "target"
"""The names of servers, for which {name} stands in their arguments."""

FAR, IN_POD = "far", "pod"
_START_S, _CLIENT_S, _END_S = 20.0, 150.0, 20.0


def needed(program: str, *directories: str) -> str:
    """A program's path, from $PATH or one of these directories. Fails if it is not there."""
    found = shutil.which(program, path=os.pathsep.join((os.environ["PATH"], *directories)))
    assert found, f"there is no {program}: install it with `make .ci/test-packages`"
    return found


def far_side_of(pod: ConformancePod) -> int:
    """A process in the network behind the pod's veth pair."""
    own = os.readlink(f"/proc/{pod.pid}/ns/net")
    for pid in descendants(pod.pid):
        if os.readlink(f"/proc/{pid}/ns/net") != own:
            return pid
    raise AssertionError("the pod has no far side")


def in_network_of(pid: int, command: Sequence[str | Path]) -> list[str]:
    """How a command is run in a process's network."""
    return ["nsenter", f"--net=/proc/{pid}/ns/net", "--", *map(str, command)]


@attrs.define
class Server:
    """A running server."""

    process: subprocess.Popen[bytes]
    errors: IO[bytes]
    said: list[str] = attrs.field(factory=list)

    def line(self, timeout_s: float = _START_S) -> str:
        """The next line of its standard output. Fails if none comes."""
        stdout = self.process.stdout
        assert stdout is not None
        line = b""
        while not line.endswith(b"\n"):
            assert select.select([stdout], [], [], timeout_s)[0], f"it says nothing; before: {self}"
            byte = os.read(stdout.fileno(), 1)
            assert byte, f"it ended: {self}"
            line += byte
        self.said.append(line.decode().rstrip("\n"))
        return self.said[-1]

    def wait_until_ready(self) -> None:
        while self.line() != "ready":
            pass

    def say_lines(self, number: int) -> None:
        """Waits until it has said so many."""
        while len(self.said) < number:
            self.line()

    def ask(self, command: str) -> str:
        """What a server that takes commands says to one."""
        self.tell(command)
        return self.line()

    def tell(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{command}\n".encode())
        self.process.stdin.flush()

    def ended(self, number: signal.Signals | None = None) -> Outcome:
        """What it has said in the end, which comes by itself or after a signal."""
        if number is not None:
            self.process.send_signal(number)
        try:
            rest, _ = self.process.communicate(timeout=_END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            rest, _ = self.process.communicate()
            raise AssertionError(f"it does not end: {self}{rest.decode(errors='replace')[-3000:]}") from None
        stdout = "".join(f"{line}\n" for line in self.said) + rest.decode(errors="replace")
        return Outcome(stdout, self._errors(), self.process.returncode)

    def _errors(self) -> str:
        return os.pread(self.errors.fileno(), 1 << 20, 0).decode(errors="replace")

    def __str__(self) -> str:
        return f"{self.process.args!r}\n{self.said}\nstandard error:\n{self._errors()[-4000:]}"


@contextmanager
def started(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Iterator[Server]:
    """A server that is ready. It is ended with the block."""
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        ) as process,
    ):
        server = Server(process, errors)
        try:
            server.wait_until_ready()
            yield server
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def run_client(command: Sequence[str], timeout_s: float = _CLIENT_S, stdin: bytes = b"") -> str:
    """What a client says. Fails if it does."""
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired as late:
        raise AssertionError(
            f"client hangs: {command}\n{(late.stdout or b'').decode(errors='replace')[-3000:]}"
        ) from None
    output = done.stdout.decode(errors="replace")
    assert done.returncode == 0, f"{command}: {done.returncode}\n{output}{done.stderr.decode(errors='replace')[-3000:]}"
    return output


@attrs.frozen
class Case:
    """A server and its client, each an argument list; `end` is the signal that ends the server, if any."""

    server: tuple[str, ...]
    client: tuple[str, ...]
    clients: str = FAR
    end: signal.Signals | None = None
    hasty: str = ""
    """A regular expression for what depends on whether the server is faster than the end of a connection."""

    def of(self, name: str) -> list[str]:
        return [part.replace("{name}", name) for part in self.server]

    def in_time(self, said: str) -> str:
        """What a server says who is as fast as the connections."""
        return re.sub(self.hasty, "", self.ordered(said)) if self.hasty else self.ordered(said)

    def ordered(self, said: str) -> str:
        """The same in an order that does not depend on which connection is the first."""
        return "".join(sorted(said.splitlines(keepends=True))) if self.end else said


@attrs.define
class ServingWorld:
    """Where the cases of a delivery run: `outside` has the network of the tool."""

    delivery: str
    pod: ConformancePod
    outside: ConformancePod
    natives: dict[Case, tuple[Outcome, str]]

    def in_pod(self, command: Sequence[str | Path]) -> list[str]:
        return in_network_of(self.pod.pid, command)

    def client_command(self, command: Sequence[str | Path], clients: str = FAR) -> list[str]:
        pid = self.pod.pid if clients == IN_POD else far_side_of(self.pod)
        return in_network_of(pid, command)

    def client(self, command: Sequence[str | Path], clients: str = FAR, timeout_s: float = _CLIENT_S) -> str:
        """What a client says that talks to the pod."""
        return run_client(self.client_command(command, clients), timeout_s)

    def here(self, command: Sequence[str | Path]) -> str:
        """What a client says on the tool's machine."""
        return run_client(in_network_of(self.outside.pid, command))

    def tool(self, program: Sequence[str | Path], *options: str) -> list[str]:
        return tool_command(self.outside, self.pod, self.delivery, list(map(str, program)), options)

    def native(self, case: Case) -> tuple[Outcome, str]:
        """What server and client say in the pod."""
        if case not in self.natives:
            with started(self.in_pod(case.of(PROCESS))) as server:
                told = self.client(case.client, case.clients)
                outcome = server.ended(case.end)
            self.natives[case] = outcome, told
        return self.natives[case]

    def steals(self, case: Case, *options: str) -> tuple[Outcome, str]:
        """The outcomes, which are those in the pod."""
        outcome, told = self.native(case)
        with nothing_left(), started(self.in_pod(case.of(TARGET))) as target:
            begun = list(target.said)
            with started(self.tool(case.of(PROCESS), "--steal", *options)) as server:
                now_told = self.client(case.client, case.clients)
                now = server.ended(case.end)
            rest = target.ended(signal.SIGTERM).stdout.splitlines()[len(begun) :]
        same("the clients", told, now_told, now.stderr)
        same("the server", case.ordered(outcome.stdout), case.ordered(now.stdout), now.stderr)
        assert (now.exit_status, outcome.exit_status) == (0, 0), (outcome, now)
        assert PROCESS not in "".join(rest)
        assert rest == [] or case.end is not None, f"the target heard something: {rest}"
        return now, now_told

    def mirrors(self, case: Case, *options: str) -> tuple[Outcome, str]:
        """The outcomes: the server's as in the pod, and the target's and its clients' as well."""
        outcome, told = self.native(case)
        with (
            nothing_left(),
            started(self.in_pod(case.of(TARGET))) as target,
            started(self.tool(case.of(PROCESS), "--incoming", "mirror", *options)) as server,
        ):
            now_told = self.client(case.client, case.clients)
            targets = target.ended(case.end)
            if case.end is not None:
                server.say_lines(len(outcome.lines))
            now = server.ended(case.end)
        same("the clients", told.replace(PROCESS, TARGET), now_told, now.stderr)
        native = case.ordered(outcome.stdout.replace(PROCESS, TARGET))
        same("the target", native, case.ordered(targets.stdout), now.stderr)
        same("the server", case.in_time(outcome.stdout), case.in_time(now.stdout), now.stderr)
        assert (now.exit_status, targets.exit_status, outcome.exit_status) == (0, 0, 0), (outcome, targets, now)
        return now, now_told


def same(who: str, before: str, after: str, errors: str = "") -> None:
    """Fails with a difference unless the texts are equal."""
    if before != after:
        lines = difflib.unified_diff(
            before.splitlines(), after.splitlines(), f"{who} in the pod", f"{who} now", lineterm="", n=1
        )
        text = "\n".join([*lines][:60])
        raise AssertionError(f"{text}\nstandard error of the tool:\n{errors[-4000:]}")
