"""Commands that are found, not found, and found but not executable: with the shells' exit codes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from mirrord_trace.errors import Failure
from mirrord_trace.supervisor.launch import exit_code_of, find_program
from tests.mirrord_trace.supervisor.harness import ROOT, UNPRIVILEGED, run


def make(path: Path, text: str = "#!/bin/sh\n", mode: int = 0o755) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def test_name_is_looked_up_in_the_path_of_the_environment_to_come(tmp_path: Path) -> None:
    make(tmp_path / "first" / "tool", mode=0o644)
    (tmp_path / "second" / "tool").mkdir(parents=True)
    tool = make(tmp_path / "third" / "tool")
    make(tmp_path / "fourth" / "tool")
    path = b":".join(os.fsencode(tmp_path / name) for name in ("nowhere", "first", "second", "third", "fourth"))
    found = find_program(["tool", "argument"], {b"PATH": path, b"A": b"b"})
    assert found.path == os.fsencode(tool)
    assert found.argv == (b"tool", b"argument")
    assert found.environment[b"A"] == b"b"


def test_empty_part_of_the_path_is_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "tool")
    monkeypatch.chdir(tmp_path)
    assert find_program(["tool"], {b"PATH": b"/nowhere:"}).path == b"./tool"
    assert find_program(["./tool"], {b"PATH": b""}).path == b"./tool"


def test_environment_without_a_path_has_the_systems() -> None:
    assert find_program(["sh"], {}).path in (b"/bin/sh", b"/usr/bin/sh")


def test_names_need_not_be_text(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff-tool")
    make(tmp_path / name)
    assert find_program([f"{tmp_path}/{name}"], {}).path.endswith(b"/\xff-tool")


@pytest.mark.parametrize("command", ["no-such-tool", "/no/such/tool", ""])
def test_command_that_is_not_there(command: str) -> None:
    with pytest.raises(Failure, match="command not found") as failed:
        find_program([command], {b"PATH": b"/bin"})
    assert failed.value.exit_code == 127
    assert failed.value.advice


@pytest.mark.parametrize(("kind", "reason"), [("file", "is not executable"), ("directory", "is a directory")])
def test_command_that_cannot_be_executed(tmp_path: Path, kind: str, reason: str) -> None:
    path = tmp_path / "tool"
    if kind == "file":
        make(path, mode=0o644)
    else:
        path.mkdir()
    for command, environment in ((str(path), {}), ("tool", {b"PATH": os.fsencode(tmp_path)})):
        with pytest.raises(Failure, match=f"{path}.* {reason}") as failed:
            find_program([command], environment)
        assert failed.value.exit_code == 126


@pytest.mark.usefixtures("delivery")
@pytest.mark.parametrize("rights", [[], UNPRIVILEGED], ids=["root", "user"])
@pytest.mark.parametrize(
    ("text", "exit_code", "words"),
    [
        ("echo a script without a first line: $0 $1; exit 5\n", 5, None),
        ("#!/no/such/interpreter\n", 127, "No such file or directory (the interpreter"),
        ("#!/etc/passwd\n", 126, "Permission denied"),
    ],
)
def test_what_execve_says(rights: list[str], text: str, exit_code: int, words: str | None, tmp_path: Path) -> None:
    tool = make(tmp_path / "tool", text)
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(0o755)
    ended = run("pass_all", str(tool), "argument", prefix=rights)
    if words is None:
        native = subprocess.run(["sh", str(tool), "argument"], capture_output=True, text=True)
        assert (ended.exit_code, ended.stdout) == (native.returncode, native.stdout)
    assert ended.exit_code == exit_code
    assert words is None or any(words in line for line in ended.said)
    assert not any("Traceback" in line for line in ended.said)


@pytest.mark.usefixtures("delivery")
def test_program_inherits_what_a_program_would_natively() -> None:
    """Signal mask and dispositions, limits, descriptors, umask, niceness, environment."""
    script = "grep -E '^(Sig(Blk|Ign|Cgt)|Umask)' /proc/self/status; ulimit -a; ls /proc/self/fd; nice; env"
    surroundings = ["env", "--ignore-signal=USR2", "--default-signal=PIPE", "--block-signal=RTMAX", "nice", "-n", "3"]
    surroundings += ["sh", "-c", 'umask 027; ulimit -n 333; exec "$@"', "sh"]
    ended = run("nothing", "sh", "-c", script, prefix=surroundings)
    command = [*surroundings, "sh", "-c", script]
    native = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=os.environ, stdin=subprocess.DEVNULL)
    places = ("PYTHONPATH=", "OLDPWD=", "PWD=")
    ours, theirs = (
        sorted(line for line in output.splitlines() if not line.startswith(places))
        for output in (ended.stdout, native.stdout)
    )
    assert ours == theirs


@pytest.mark.parametrize(("status", "code"), [(0, 0), (0x4D00, 77), (9, 137), (0x8B, 139)])
def test_wait_statuses(status: int, code: int) -> None:
    assert exit_code_of(status) == code
