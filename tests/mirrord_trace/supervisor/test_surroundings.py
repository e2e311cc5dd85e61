"""What of this machine a program needs, read from a machine that the test makes."""

import os
import pwd
from collections.abc import Mapping
from pathlib import Path

import pytest

from mirrord_trace.config import FilesConfiguration
from mirrord_trace.policy.default_paths import Surroundings
from mirrord_trace.policy.files import FilesPolicy, Place
from mirrord_trace.supervisor.launch import Program, find_program
from mirrord_trace.supervisor.surroundings import programs_executed_with, read_surroundings


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, whose path leads through no links."""
    directory = tmp_path.resolve() / "here"
    directory.mkdir()
    monkeypatch.chdir(directory)
    return directory


def script(path: Path, first_line: str = "") -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(first_line + "\n")
    path.chmod(0o755)
    return bytes(path)


def surroundings_of(
    command: str, local: Mapping[bytes, bytes], remote: Mapping[bytes, bytes] | None = None
) -> Surroundings:
    """`remote`: the process's variables that are the target's."""
    return read_surroundings(find_program([command], {**local, **(remote or {})}), local)


def test_directories_are_those_of_the_environment(here: Path) -> None:
    tool = script(here / "tools" / "bin" / "tool")
    found = surroundings_of(
        "tool",
        {
            b"PATH": b"tools/bin::/usr/bin:/:/usr/bin/",
            b"HOME": b"/home/me/",
            b"TMPDIR": b"/scratch/../scratch/tmp",
            b"GOPATH": b"/go:/more/go",
            b"CLASSPATH": b"/jars/*:/classes",
            b"JAVA_HOME": b"/jdk",
            b"SHELL": b"/bin/sh",
        },
    )
    assert found.working_directory == bytes(here)
    assert found.home == b"/home/me"
    assert found.temporary == b"/scratch/tmp"
    assert found.executable == tool
    assert set(found.search_path) == {
        *(bytes(here) + b"/tools/bin", b"/usr/bin", b"/go", b"/more/go", b"/jars", b"/classes", b"/jdk")
    }


def test_of_the_targets_variables_those_count_by_which_the_process_searches_and_writes_here(here: Path) -> None:
    script(here / "bin" / "tool")
    found = surroundings_of(
        "tool",
        {b"PATH": b"/usr/bin", b"HOME": b"/home/me", b"TMPDIR": b"/scratch/local", b"PYTHONPATH": b"/here"},
        {
            b"PATH": b"/pod/bin:" + bytes(here / "bin"),
            b"HOME": b"/pod/home",
            b"TMPDIR": b"/pod/tmp",
            b"PYTHONPATH": b"/pod/packages",
        },
    )
    assert found.home == b"/home/me"
    assert found.temporary == b"/pod/tmp"
    assert b"/scratch/local" in found.other_names
    assert set(found.search_path) == {b"/usr/bin", b"/here", b"/pod/bin", bytes(here / "bin")}


def test_without_variables_it_is_what_programs_fall_back_to(here: Path) -> None:
    found = read_surroundings(Program(script(here / "x"), (b"x",), {}), {})
    assert found.temporary == b"/tmp"
    assert found.home == os.fsencode(pwd.getpwuid(os.getuid()).pw_dir)
    assert found.search_path == ()


def test_places_count_under_all_their_names(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(here / "project" / "tool")
    (here / "scratch").mkdir()
    (here / "link").symlink_to(here / "project")
    (here / "tmp").symlink_to(here / "scratch")
    monkeypatch.chdir(here / "link")
    found = surroundings_of("./tool", {b"PWD": bytes(here / "link"), b"TMPDIR": bytes(here / "tmp")})
    assert found.working_directory == bytes(here / "project")
    assert set(found.other_names) >= {bytes(here / "link"), bytes(here / "scratch")}


@pytest.mark.parametrize("logical", ["elsewhere", "nowhere", "relative"])
def test_a_variable_that_names_another_directory_does_not_count(here: Path, logical: str) -> None:
    (here / "elsewhere").mkdir()
    script(here / "tool")
    named = b"." if logical == "relative" else bytes(here / logical)
    assert named not in surroundings_of("./tool", {b"PWD": named}).other_names


def test_a_working_directory_that_was_removed_is_none(here: Path, tmp_path: Path) -> None:
    tool = script(tmp_path / "tool")
    here.rmdir()
    assert read_surroundings(Program(tool, (b"tool",), {}), {}).working_directory == b"/"


def test_a_program_is_also_what_it_leads_to(here: Path) -> None:
    tool = script(here / "versions" / "3" / "bin" / "tool")
    (here / "bin").mkdir()
    (here / "bin" / "tool").symlink_to(here / "versions" / "3" / "bin" / "tool")
    assert programs_executed_with(bytes(here / "bin" / "tool")) == (bytes(here / "bin" / "tool"), tool)


def test_a_script_is_also_its_interpreters(here: Path) -> None:
    real = script(here / "real" / "interpreter")
    (here / "interpreter").symlink_to(real)
    second = script(here / "second", f"#! {here}/x/../interpreter -x -y")
    first = script(here / "first", f"#!{here}/second")
    assert programs_executed_with(first) == (first, second, bytes(here / "interpreter"), real)


@pytest.mark.parametrize("line", ["", "#!", "#! ", "#!relative/interpreter", "\x7fELF", "# !/bin/sh"])
def test_other_files_have_no_interpreter(here: Path, line: str) -> None:
    assert programs_executed_with(script(here / "file", line)) == (bytes(here / "file"),)


def test_interpreters_without_an_end_are_few(here: Path) -> None:
    for number in range(9):
        script(here / str(number), f"#!{here}/{number + 1}")
    assert len(programs_executed_with(bytes(here / "0"))) == 5
    circle = script(here / "circle", f"#!{here}/circle")
    assert programs_executed_with(circle) == (circle,)


@pytest.mark.parametrize("kind", ["fifo", "directory", "nothing"])
def test_what_cannot_be_read_is_a_program_alone(here: Path, kind: str) -> None:
    path = here / "x"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    assert programs_executed_with(bytes(path)) == (bytes(path),)


def test_policy_knows_what_was_read(here: Path) -> None:
    """On this very machine: an interpreter of a script, and what is installed with it."""
    script(here / "inst" / "bin" / "interpreter")
    tool = script(here / "tools" / "tool", f"#!{here}/inst/bin/interpreter")
    elsewhere = Surroundings(working_directory=b"/", home=b"", executable=tool, temporary=b"")
    without = FilesPolicy.of(FilesConfiguration(), elsewhere, [bytes(here)])
    found = read_surroundings(Program(tool, (b"tool",), {}), {})
    policy = FilesPolicy.of(FilesConfiguration(), found, [bytes(here)])
    share = bytes(here / "inst" / "share" / "x")
    assert without.decide(share, writes=False).place is Place.REMOTE
    assert policy.decide(share, writes=False).place is Place.LOCAL
