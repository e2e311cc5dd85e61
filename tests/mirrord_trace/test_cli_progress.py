import io
import os
import pty
import re
import subprocess
import sys
from contextlib import ExitStack, suppress

import pytest

from mirrord_trace.cli.progress import LineReporter, TerminalReporter, open_stderr, reporter_for
from mirrord_trace.errors import Failure


class Terminal(io.StringIO):
    """What a terminal of 40 columns would have got."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True

    def screen(self) -> list[str]:
        """The lines as a person sees them, without colours."""
        lines = [""]
        for part in re.split(r"(\x1b\[[0-9;]*[A-Za-z]|\r\n|\r|\n)", self.getvalue()):
            if part in ("\n", "\r\n"):
                lines.append("")
            elif part == "\r":
                before = lines[-1]
                lines[-1] = f"\r{before}" if not before.startswith("\r") else before
            elif part == "\x1b[K":
                assert lines[-1].startswith("\r"), "erased from the middle of a line"
                lines[-1] = ""
            elif part and not part.startswith("\x1b"):
                lines[-1] = part if lines[-1].startswith("\r") else lines[-1] + part
        return [line.removeprefix("\r") for line in lines]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm-256color")
    return Terminal()


class Lines(io.StringIO):
    encoding = "utf-8"


def without_times(text: str) -> str:
    return re.sub(r"\d+\.\d\d s", "N s", text)


def report_everything(reporter: LineReporter) -> None:
    with reporter.step("starting the agent") as step:
        step.detail("pid/4711")
        step.detail("python3")
    reporter.explain("ptrace, because it was asked for")
    reporter.note("the target has no /etc/hosts")
    reporter.ready()
    reporter.warning("the agent is gone")
    reporter.close()


def test_plain_lines() -> None:
    stream = Lines()
    report_everything(reporter_for(stream))
    assert without_times(stream.getvalue()).splitlines() == [
        "mirrord-trace: ✓ starting the agent: pid/4711, python3",
        "mirrord-trace: - the target has no /etc/hosts",
        "mirrord-trace: ✓ ready after N s",
        "mirrord-trace: ! the agent is gone",
    ]


def test_quiet_tells_warnings_and_failures_only() -> None:
    stream = Lines()
    reporter = reporter_for(stream, quiet=True)
    report_everything(reporter)
    reporter.failure(Failure("no such process: 4711", advice="Start it."))
    assert stream.getvalue().splitlines() == [
        "mirrord-trace: ! the agent is gone",
        "mirrord-trace: x no such process: 4711",
        "mirrord-trace:   Start it.",
    ]


def test_verbose_explains() -> None:
    stream = Lines()
    report_everything(reporter_for(stream, verbose=True))
    assert "mirrord-trace:   ptrace, because it was asked for\n" in stream.getvalue()


def test_failed_step_is_marked_and_its_exception_goes_on() -> None:
    stream = Lines()
    with pytest.raises(Failure, match="gone"), LineReporter(stream).step("starting the agent"):
        raise Failure("gone")
    assert stream.getvalue() == "mirrord-trace: x starting the agent\n"


def test_signs_that_cannot_be_written_become_ascii() -> None:
    raw = io.BytesIO()
    reporter = LineReporter(io.TextIOWrapper(raw, "ascii", errors="backslashreplace", write_through=True))
    with reporter.step("finding \N{GREEK SMALL LETTER PI}"):
        pass
    assert raw.getvalue() == b"mirrord-trace: ok finding \\u03c0\n"


@pytest.mark.parametrize("kind", [LineReporter, TerminalReporter])
def test_names_from_a_target_do_not_steer_the_terminal(kind: type[LineReporter], terminal: Terminal) -> None:
    reporter = kind(terminal)
    with reporter.step("starting the agent") as step:
        step.detail("\x1b]0;title\x07\x1b[2J\x9b2J\r")
    assert r"\x1b]0;title\x07\x1b[2J\x9b2J" in terminal.getvalue()
    assert not {"\x1b]", "\x1b[2J", "\x9b", "\x07"} & set(re.findall(r"\x1b.|\x1b\[2J|\x9b|\x07", terminal.getvalue()))


def test_terminal_shows_the_step_under_way_and_takes_it_back(terminal: Terminal) -> None:
    reporter = reporter_for(terminal)
    assert isinstance(reporter, TerminalReporter)
    with reporter.step("starting the agent") as step:
        assert terminal.screen() == ["… starting the agent"]
        reporter.note("this takes a while")
        assert terminal.screen() == ["- this takes a while", "… starting the agent"]
        step.detail("pid/4711")
    assert terminal.screen() == ["- this takes a while", "✓ starting the agent: pid/4711", ""]


def test_what_a_step_waits_for_gets_a_line_when_it_changes() -> None:
    raw = io.BytesIO()
    reporter = LineReporter(io.TextIOWrapper(raw, "utf-8", write_through=True))
    with reporter.step("waiting for the agent") as step:
        step.waiting("pulling")
        step.waiting("pulling")
        step.waiting("starting")
        step.detail("on node-1")
    assert raw.getvalue().decode().splitlines() == [
        "mirrord-trace: … waiting for the agent: pulling",
        "mirrord-trace: … waiting for the agent: starting",
        "mirrord-trace: ✓ waiting for the agent: on node-1",
    ]


def test_terminal_shows_what_a_step_waits_for_in_its_line(terminal: Terminal) -> None:
    with TerminalReporter(terminal).step("waiting for the agent") as step:
        step.waiting("pulling")
        assert terminal.screen() == ["… waiting for the agent: pulling"]
        step.waiting("starting")
        assert terminal.screen() == ["… waiting for the agent: starting"]
    assert terminal.screen() == ["✓ waiting for the agent", ""]


def test_terminal_steps_may_overlap(terminal: Terminal) -> None:
    reporter = TerminalReporter(terminal)
    with ExitStack() as outer, ExitStack() as inner:
        outer.enter_context(reporter.step("starting the agent"))
        inner.enter_context(reporter.step("looking for the command"))
        assert terminal.screen() == ["… looking for the command"]
        outer.close()
        assert terminal.screen() == ["✓ starting the agent", "… looking for the command"]
    assert terminal.screen() == ["✓ starting the agent", "✓ looking for the command", ""]


def test_terminal_step_under_way_never_wraps(terminal: Terminal) -> None:
    with TerminalReporter(terminal).step("starting " * 20):
        (line,) = terminal.screen()
        assert len(line) < 40


def test_terminal_is_left_to_the_process_once_it_is_ready(terminal: Terminal) -> None:
    reporter = TerminalReporter(terminal)
    with reporter.step("opening relays"):
        reporter.ready()
        assert [without_times(line) for line in terminal.screen()] == ["✓ ready after N s", ""]
        before = terminal.getvalue()
        with reporter.step("something late"):
            assert terminal.getvalue() == before, "drawn over the process's output"
        reporter.warning("the agent is gone")
    late = terminal.getvalue()[len(before) :]
    # Lines stand on their own even when the process put the terminal into raw mode.
    assert all(line.startswith("\r") and line.endswith("\r") for line in late.split("\n")[:-1])
    assert "mirrord-trace: the agent is gone" in late


def test_terminal_is_clean_after_close_in_the_middle_of_a_step(terminal: Terminal) -> None:
    reporter = TerminalReporter(terminal)
    with reporter.step("starting the agent"):
        reporter.close()
        reporter.close()
        assert terminal.screen() == [""]
    assert terminal.screen() == [""]


def test_quiet_terminal_draws_nothing(terminal: Terminal) -> None:
    with reporter_for(terminal, quiet=True).step("starting the agent"):
        pass
    assert terminal.getvalue() == ""


@pytest.mark.parametrize("term", ["dumb", ""])
def test_dumb_terminal_gets_plain_lines(terminal: Terminal, monkeypatch: pytest.MonkeyPatch, term: str) -> None:
    monkeypatch.setenv("TERM", term)
    with reporter_for(terminal).step("starting the agent"):
        assert terminal.getvalue() == ""
    assert terminal.getvalue() == "mirrord-trace: ✓ starting the agent\n"


SCRIPT = """
import sys
from mirrord_trace.cli.progress import open_stderr, reporter_for
reporter = reporter_for(open_stderr())
sys.stdin.read()
reporter.warning("is there anybody?")
sys.exit(7)
"""


def test_nobody_reading_stderr_changes_nothing() -> None:
    process = subprocess.Popen([sys.executable, "-c", SCRIPT], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    with process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stderr.close()
        process.stdin.close()
    assert process.returncode == 7


def test_full_nonblocking_stderr_changes_nothing() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, bytes(4096))
    result = subprocess.run([sys.executable, "-c", SCRIPT], stdin=subprocess.DEVNULL, stderr=writer)
    os.close(reader)
    os.close(writer)
    assert result.returncode == 7


def test_closed_stderr_changes_nothing() -> None:
    result = subprocess.run(["sh", "-c", 'exec 2>&-; exec "$0" -c "$1"', sys.executable, SCRIPT], input=b"")
    assert result.returncode == 7


def test_real_terminal_gets_the_terminal_reporter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    controller, terminal = pty.openpty()
    saved = os.dup(2)
    try:
        os.dup2(terminal, 2)
        with open_stderr() as stream:
            assert isinstance(reporter_for(stream), TerminalReporter)
    finally:
        os.dup2(saved, 2)
        for descriptor in (saved, controller, terminal):
            os.close(descriptor)
