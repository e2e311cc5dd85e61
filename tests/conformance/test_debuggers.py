"""Debuggers: gdb, strace and Delve as part of the tree, and attached to it from outside, work as they do natively.

This is what the notify delivery is for; under ptrace they are refused, with an explanation (see test_nesting.py of the
supervisor). What a debugger prints is compared with what it prints in the pod, but for addresses and process ids.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest

from tests.conformance import build, places
from tests.conformance.harness import (
    NATIVE,
    Outcome,
    World,
    descendants,
    nothing_left,
    run_outside,
    tool_command,
    wait_until_gone,
)
from tests.conformance.pods import ConformancePod
from tests.conformance.test_terminal import CONTROL_C, CONTROL_Z
from tests.conformance.test_terminal import shell as interactive_shell

DELIVERY = "notify"
NEAR, FAR = places.NEAR[0], places.FAR[0]
WITHIN_S = 60
PROMISED_S = 1.0
IN_THE_POD = [
    f"resolved: inet {NEAR}",
    f"resolver: nameserver {places.NAME_SERVERS[0]}",
    f"peer: inet {FAR} {places.ECHO}",
    "local: inet 198.18.1.1",
    "echo: echoed",
    f"host name: {places.HOSTNAME}",
]
AS_EXPECTED = ["connects to silence: made, as expected", "connects and reads: made, as expected"]

_CHANGES = [
    (r"\x1b\[[0-9;]*m", ""),
    (r"0x[0-9a-f]+|\b\d{15}\b", "ADDRESS"),
    (r"\b([Pp]rocess|LWP|PID|pid|thread|Thread) \d+", r"\1 N"),
]


def installed(name: str, package: str) -> str:
    path = shutil.which(name)
    assert path is not None, f"no {name}: apt-get install {package}"
    return path


def gdb(*commands: str) -> list[str]:
    """A gdb that reads no settings of the user's and asks nobody for symbols."""
    quiet = [installed("gdb", "gdb"), "-nx", "-batch", "-iex", "set debuginfod enabled off"]
    return [*quiet, *(word for command in commands for word in ("-ex", command))]


def delve(directory: Path, verb: str, *arguments: str, commands: Sequence[str]) -> list[str]:
    """A Delve that gets commands from a file, and keeps its own settings in a directory of the test.

    It complains about Go versions younger than itself, but all that is needed here works.
    """
    script = directory / "commands"
    script.write_text("".join(f"{command}\n" for command in commands))
    environment = ["env", f"XDG_CONFIG_HOME={directory}", "TERM=dumb"]
    unattended = ["--allow-non-terminal-interactive=true", "--check-go-version=false", "--init", str(script)]
    return [*environment, installed("dlv", "delve"), verb, *unattended, *arguments]


in_pod_and_under_the_tool = pytest.mark.parametrize("world", [NATIVE, DELIVERY], indirect=True)


@attrs.frozen
class Seen:
    """What a debugger and its program printed, in a form that can be compared, and the exit status."""

    text: str
    exit_status: int

    @classmethod
    def of(cls, outcome: Outcome) -> Seen:
        text = outcome.stdout
        for pattern, replacement in _CHANGES:
            text = re.sub(pattern, replacement, text)
        return cls(text, outcome.exit_status)

    def assert_in_order(self, *wanted: str) -> None:
        position = 0
        for each in wanted:
            found = self.text.find(each, position)
            assert found >= 0, f"{each!r} does not come in\n{self.text[position:]}\nafter\n{self.text[:position]}"
            position = found + len(each)


def debugged(world: World, command: Sequence[str | Path], stdin: bytes = b"") -> Seen:
    """What is seen in this world; a failure unless it is what is seen in the pod."""
    native = Seen.of(world.native(command, stdin=stdin))
    if not world.traced:
        return native
    outcome = run_outside(
        tool_command(world.outside, world.pod, world.name, list(map(str, command))), stdin=stdin, timeout_s=WITHIN_S
    )
    assert Seen.of(outcome) == native, outcome.stderr[-4000:]
    return native


def debuggee(library: str = "glibc") -> list[str]:
    return [str(build.c_program("debuggee", library, debugged=True)), "shop", FAR, str(places.ECHO)]


# -- as part of the tree ----------------------------------------------------------------------------------------------


@in_pod_and_under_the_tool
def test_gdb_steps_over_intercepted_calls(world: World) -> None:
    commands = ["break main", "run", "next", "next", "next", "print name", "next", "next", "print server", "next"]
    commands += ["break reached", "continue", "backtrace", "finish", "continue"]
    seen = debugged(world, [*gdb(*commands), "--args", *debuggee()])
    seen.assert_in_order(
        "Breakpoint 1, main (",
        f'"inet {NEAR}"',
        f'"nameserver {places.NAME_SERVERS[0]}"',
        "Breakpoint 2, reached (",
        "Value returned is $3 = 3",
        *IN_THE_POD[2:],
        "exited with code 07",
    )
    assert seen.exit_status == 0


@in_pod_and_under_the_tool
@pytest.mark.parametrize("library", ["glibc", "musl"])
def test_gdb_stops_at_the_calls_themselves(world: World, library: str) -> None:
    commands = ["break reached", "run", "catch syscall connect", "continue", "stepi", "finish", "delete"]
    commands += ["catch syscall getpeername", "continue", "continue", "delete", "continue"]
    seen = debugged(world, [*gdb(*commands), "--args", *debuggee(library)])
    seen.assert_in_order(
        "(call to syscall connect)",
        "(call to syscall getpeername)",
        "(returned from syscall getpeername)",
        *IN_THE_POD[2:],
        "exited with code 07",
    )


@in_pod_and_under_the_tool
def test_gdb_follows_a_child(world: World) -> None:
    commands = [
        "set follow-fork-mode child",
        "set breakpoint pending on",
        "break host_name",
        "run",
        "finish",
        "continue",
    ]
    script = ["/bin/sh", "-c", f"{shlex.join(debuggee())}; exit 3"]
    seen = debugged(world, [*gdb(*commands), "--args", *script])
    seen.assert_in_order(f'"{places.HOSTNAME}"', "exited with code 07")


@in_pod_and_under_the_tool
def test_strace_shows_the_pods_world(world: World) -> None:
    script = ["/bin/sh", "-c", f"{shlex.join(debuggee())}; {shlex.join(debuggee('musl'))}; exit 3"]
    trace = [installed("strace", "strace"), "-f", "-e", "trace=connect,getpeername,uname", "-e", "signal=none"]
    seen = debugged(world, [*trace, "-o", "|sed 's/^[0-9]* *//'", *script])
    to = f'sin_port=htons({places.ECHO}), sin_addr=inet_addr("{FAR}")'
    for call in ("connect(3, {sa_family=AF_INET, ", "getpeername(3, {sa_family=AF_INET, "):
        assert len(re.findall(re.escape(call + to) + r".*\) = 0", seen.text)) == 2
    assert seen.text.count(f'uname({{sysname="Linux", nodename="{places.HOSTNAME}", ...}}) = 0') == 2
    assert seen.text.count("+++ exited with 7 +++") == 2
    assert seen.exit_status == 3


def go_debuggee() -> list[str]:
    return [str(build.go_program("debuggee", debugged=True)), "--", "shop", f"{FAR}:{places.ECHO}"]


GO_STEPS = [
    "break main.reached",
    "continue",
    "print address",
    "next",
    "next",
    "stepout",
    "next",
    "print peer",
    "continue",
    "exit",
]
GO_SEEN = [
    "> main.reached() ",
    f'"{FAR}:{places.ECHO}"',
    "> main.main() ",
    f'"{FAR}:{places.ECHO}"',
]
GO_IN_THE_POD = [
    f"resolved: {NEAR}",
    f"resolver: nameserver {places.NAME_SERVERS[0]}",
    f"peer: {FAR}:{places.ECHO}",
    "echo: through Go",
    f"host name: {places.HOSTNAME} OK",
]


@in_pod_and_under_the_tool
def test_delve_runs_a_program(world: World, tmp_path: Path) -> None:
    seen = debugged(world, delve(tmp_path, "exec", *go_debuggee(), commands=GO_STEPS))
    seen.assert_in_order(*GO_SEEN, "exited with status 7")
    seen.assert_in_order(*GO_IN_THE_POD)


@in_pod_and_under_the_tool
def test_delve_runs_a_program_again(world: World, tmp_path: Path) -> None:
    commands = ["break main.nameServer", "continue", "restart", "continue", "stepout", "clearall", "continue", "exit"]
    seen = debugged(world, delve(tmp_path, "exec", *go_debuggee(), commands=commands))
    seen.assert_in_order("> main.nameServer() ", "Process restarted", "> main.nameServer() ", *GO_IN_THE_POD[1:])
    assert seen.text.count(GO_IN_THE_POD[0]) == 2


@in_pod_and_under_the_tool
def test_delve_serves_an_editor(world: World, tmp_path: Path) -> None:
    """What editors do: one Delve runs the program, another one talks to it through a socket."""
    address = f"127.0.0.1:{places.FREE}"
    server = [installed("dlv", "delve"), "exec", "--headless", f"--listen={address}", "--check-go-version=false"]
    client = delve(tmp_path, "connect", address, commands=GO_STEPS)
    waiting = f"{{ read -r line; {shlex.join(client)}; cat; }}"
    settings = f"export XDG_CONFIG_HOME={shlex.quote(str(tmp_path))}"
    # The server's first line says that it listens.
    script = f"{settings}; {shlex.join([*server, *go_debuggee()])} | {waiting}"
    seen = debugged(world, ["/bin/bash", "-c", script])
    seen.assert_in_order(*GO_SEEN, "exited with status 7")
    seen.assert_in_order(*GO_IN_THE_POD)


# -- on a terminal ----------------------------------------------------------------------------------------------------


def test_gdb_on_a_terminal(pod: ConformancePod, outside: ConformancePod) -> None:
    """The keys of a terminal reach whom they should: the program while it runs, gdb while it asks."""
    ports = map(str, [places.SILENT, places.ECHO, places.UDP_ECHO])
    program = [str(build.c_program("attached", "glibc", debugged=True)), *ports, FAR]
    # Without editing, which switches the terminal to and fro and may lose what is typed just then.
    interactive = [word for word in gdb("set pagination off", "set editing off") if word != "-batch"]
    with interactive_shell() as terminal:
        terminal.type("set -b\n")
        terminal.type(shlex.join(tool_command(outside, pod, DELIVERY, [*interactive, "--args", *program])) + "\n")
        terminal.expect("(gdb) ")
        terminal.type("run\n")
        for sign in ("ready ", "Continuing.", "Continuing."):
            terminal.expect(sign)
            terminal.type(CONTROL_C)
            terminal.expect("received signal SIGINT")
            terminal.expect("(gdb) ")
            terminal.type("continue\n")
        terminal.expect("Continuing.")
        terminal.type("\n")
        for line in (AS_EXPECTED[0], "a datagram: made, as expected", AS_EXPECTED[1], "exited with code 07", "(gdb) "):
            terminal.expect(line)
        terminal.type(CONTROL_Z)
        terminal.expect("Stopped")
        terminal.expect("prompt> ")
        terminal.type("fg\n")
        terminal.type("print 6 * 7\n")
        terminal.expect("= 42")
        terminal.type("quit\n")
        terminal.expect("prompt> ")
        terminal.type('echo "ended with $?"\n')
        terminal.expect("ended with 0")


def test_delve_on_a_terminal(pod: ConformancePod, outside: ConformancePod, tmp_path: Path) -> None:
    addresses = [f"{FAR}:{places.SILENT}", f"{FAR}:{places.ECHO}"]
    program = [str(build.go_program("attached", debugged=True)), "--", *addresses]
    # With the terminal as its input the program would read there what is typed for Delve.
    line = tmp_path / "line"
    os.mkfifo(line)
    command = delve(tmp_path, "exec", "--redirect", f"stdin:{line}", *program, commands=["break main.roundTrip"])
    with interactive_shell() as terminal, line.open("r+b", buffering=0) as writer:
        terminal.type(shlex.join(tool_command(outside, pod, DELIVERY, command)) + "\n")
        terminal.expect("(dlv) ")
        terminal.type("continue\n")
        terminal.expect("> main.roundTrip() ")
        terminal.expect("(dlv) ")  # what is typed before that may be lost when Delve switches the terminal
        terminal.type("clearall\n")
        terminal.expect("cleared")
        terminal.expect("(dlv) ")
        terminal.type("continue\n")
        terminal.expect("ready ")
        terminal.type(CONTROL_C)
        terminal.expect("received SIGINT, stopping process")
        terminal.expect("(dlv) ")
        writer.write(b"\n")
        terminal.type("continue\n")
        terminal.expect(AS_EXPECTED[1])
        terminal.expect("exited with status 7")
        terminal.type("exit\n")
        terminal.expect("prompt> ")


# -- attached from outside --------------------------------------------------------------------------------------------


@attrs.frozen
class Running:
    """A program under the tool that has calls under way in every thread until it reads a line."""

    pid: int
    tool: subprocess.Popen[str]

    def debug(self, *command: str, stdin: str = "") -> str:
        """What an attached debugger said to the end of its work."""
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=WITHIN_S, check=False)
        assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def finish(self) -> list[str]:
        """What it has to tell, after a line."""
        output, errors = self.tool.communicate("\n", timeout=WITHIN_S)
        assert self.tool.returncode == 7, errors
        return output.splitlines()


@contextmanager
def running(pod: ConformancePod, outside: ConformancePod, *program: str) -> Iterator[Running]:
    with nothing_left():
        tool = subprocess.Popen(
            tool_command(outside, pod, DELIVERY, program),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert tool.stdout is not None
            ready = tool.stdout.readline().split()
            assert ready[:1] == ["ready"], tool.communicate(timeout=WITHIN_S)
            yield Running(int(ready[1]), tool)
        finally:
            tool.kill()
            tool.communicate(timeout=WITHIN_S)


@pytest.fixture
def in_c(pod: ConformancePod, outside: ConformancePod) -> Iterator[Running]:
    ports = map(str, [places.SILENT, places.ECHO, places.UDP_ECHO])
    with running(pod, outside, str(build.c_program("attached", "glibc", debugged=True)), *ports, FAR) as program:
        yield program


@pytest.fixture
def in_go(pod: ConformancePod, outside: ConformancePod) -> Iterator[Running]:
    addresses = [f"{FAR}:{places.SILENT}", f"{FAR}:{places.ECHO}"]
    with running(pod, outside, str(build.go_program("attached", debugged=True)), *addresses) as program:
        yield program


def test_gdb_attaches_while_calls_are_held(in_c: Running) -> None:
    for _ in range(3):
        said = in_c.debug(*gdb("thread apply all backtrace 3", "detach"), "--pid", str(in_c.pid))
        assert re.search(r"connect \(.*\n#1 .* in connects_to_silence", said), said
        assert re.search(r"recvfrom \(.*\n#1 .* in waits_for_a_datagram", said), said
        assert "detached" in said
    assert in_c.finish() == [AS_EXPECTED[0], "a datagram: made, as expected", AS_EXPECTED[1]]


def test_gdb_attaches_and_stops_one_thread_while_others_are_in_held_calls(in_c: Running) -> None:
    steps = [
        "break round_trip",
        "continue",
        "backtrace",
        "next",
        "next",
        "next",
        "continue",
        "finish",
        "delete",
        "detach",
    ]
    said = in_c.debug(*gdb(*steps), "--pid", str(in_c.pid))
    assert said.count("hit Breakpoint 1, round_trip (") == 2
    assert in_c.finish() == [AS_EXPECTED[0], "a datagram: made, as expected", AS_EXPECTED[1]]


def test_a_killed_debugger_lets_the_program_go_on(in_c: Running) -> None:
    command = [*gdb("echo attached\\n", "shell read line"), "--pid", str(in_c.pid)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as debugger:
        assert debugger.stdout is not None
        while "attached" not in (line := debugger.stdout.readline()):
            assert line, "gdb ended"
        debugger.kill()
        debugger.communicate()
    assert in_c.finish() == [AS_EXPECTED[0], "a datagram: made, as expected", AS_EXPECTED[1]]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_program_stopped_in_a_debugger_goes_with_the_supervisor(in_c: Running, how: signal.Signals) -> None:
    command = [*gdb("echo attached\\n", "shell read line"), "--pid", str(in_c.pid)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as debugger:
        assert debugger.stdout is not None
        while "attached" not in (line := debugger.stdout.readline()):
            assert line, "gdb ended"
        below = descendants(in_c.tool.pid)
        assert in_c.pid in below
        in_c.tool.send_signal(how)
        # Dead as it is, it remains for its tracer to bury (ptrace(2)).
        debugger.communicate("\n", timeout=WITHIN_S)
    alive = wait_until_gone([in_c.tool.pid, *below], PROMISED_S)
    assert not alive, [below.get(pid, "the tool") for pid in alive]


def test_strace_attaches_to_a_thread_in_a_held_call(in_c: Running) -> None:
    tasks = Path(f"/proc/{in_c.pid}/task").iterdir()
    (thread,) = (task.name for task in tasks if (task / "comm").read_text() == "silence\n")
    trace = [installed("strace", "strace"), "-e", "trace=connect", "-p", thread]
    with subprocess.Popen(trace, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr is not None
        said = ""
        while "ETIMEDOUT" not in said:
            line = tracer.stderr.readline()
            assert line, said
            said += line
        tracer.terminate()
        tracer.communicate(timeout=WITHIN_S)
    assert f'{{sa_family=AF_INET, sin_port=htons({places.SILENT}), sin_addr=inet_addr("{FAR}")}}, 16) = -1' in said
    assert in_c.finish() == [AS_EXPECTED[0], "a datagram: made, as expected", AS_EXPECTED[1]]


def test_delve_attaches_while_a_call_is_held(in_go: Running, tmp_path: Path) -> None:
    steps = [
        "goroutines",
        "break main.roundTrip",
        "continue",
        "args",
        "next",
        "next",
        "next",
        "stepout",
        "clearall",
        "exit",
    ]
    for _ in range(2):
        # At the end it asks whether the program shall be killed.
        said = in_go.debug(*delve(tmp_path, "attach", str(in_go.pid), commands=steps), stdin="n\n")
        assert f'address = "{FAR}:{places.ECHO}"' in said, said
        assert "> main.dialEcho() " in said
    assert in_go.finish() == AS_EXPECTED
