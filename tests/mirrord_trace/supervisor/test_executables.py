"""What the user is told of programs that a tracer changes the meaning of."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from mirrord_syscalls.abi import native_abi
from mirrord_trace.supervisor.executables import Seen, look_at_program
from tests.mirrord_trace.supervisor.harness import ROOT, TIMEOUT_S, UNPRIVILEGED, program, run

pytestmark = pytest.mark.usefixtures("delivery")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize(
    ("mode", "who"), [(0o4755, "set-user-ID"), (0o2755, "set-group-ID")], ids=["set-user-ID", "set-group-ID"]
)
def test_program_that_would_run_as_another_user(mode: int, who: str, place: Path) -> None:
    tool = place / "tool"
    shutil.copy("/usr/bin/id", tool)
    tool.chmod(mode)
    ended = run("pass_all", "sh", "-c", f"{tool} -u; {tool} -g; id -u", prefix=UNPRIVILEGED)
    assert ended.stdout == "65534\n65534\n65534\n"
    assert len(ended.warnings) == 2
    assert all(f"{tool} is {who}" in warning and "65534" in warning for warning in ended.warnings)


def test_root_keeps_set_user_id_programs(place: Path) -> None:
    tool = place / "tool"
    shutil.copy("/usr/bin/id", tool)
    os.chown(tool, 65534, 65534)
    tool.chmod(0o4755)
    ended = run("pass_all", str(tool), "-u")
    assert (ended.stdout, ended.warnings) == ("65534\n", [])


def test_program_that_only_a_capability_reaches(tmp_path: Path) -> None:
    """The kernel lets it be executed, though access(2) says no: that asks for the real user, without capabilities."""
    tmp_path.chmod(0o700)
    tool = tmp_path / "tool"
    shutil.copy("/usr/bin/id", tool)
    ended = run("pass_all", str(tool), "-u", prefix=UNPRIVILEGED)
    assert (ended.stdout, ended.exit_code) == ("65534\n", 0)


def test_program_of_another_architecture(place: Path) -> None:
    """A 32-bit ELF file of our own making, which would exit with 0 at once."""
    code = bytes.fromhex("b801000000 31db cd80 0f0b".replace(" ", ""))  # exit(0) by int 0x80, then ud2
    base, header_bytes = 0x0804_8000, 52 + 32
    size = header_bytes + len(code)
    header = b"\x7fELF\x01\x01\x01" + bytes(9)
    header += struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, base + header_bytes, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    header += struct.pack("<IIIIIIII", 1, 0, base, base, size, size, 5, 4096)
    tool = place / "tool"
    tool.write_bytes(header + code)
    tool.chmod(0o755)
    ended = run("pass_all", str(tool))
    if ended.exit_code == 126:
        assert any("Exec format error" in line for line in ended.said)
        return  # a kernel without 32-bit programs says so itself
    assert ended.exit_code != 0
    assert any(f"{tool} is not a x86_64 program" in warning for warning in ended.warnings)


def test_ordinary_programs_are_not_complained_of() -> None:
    assert run("pass_all", program("family"), "vforks").warnings == []


LOOK = """if 1:
    import os, sys
    from mirrord_syscalls.abi import native_abi
    from mirrord_trace.supervisor.executables import look_at_program
    if os.geteuid() == 0:  # whom everything can be read by
        os.setresuid(65534, 65534, 65534)
    print(look_at_program(os.getpid(), os.fsencode(sys.argv[1]), "tool", native_abi()))
"""


def test_a_program_that_could_not_be_read_is_looked_at_again(place: Path) -> None:
    """Who starts it may execute it, and we may not read it."""
    tool = place / "tool"
    shutil.copy("/usr/bin/id", tool)
    for mode, expected in ((0o111, Seen()), (0o755, Seen(is_ordinary=True))):
        tool.chmod(mode)
        command = [sys.executable, "-c", LOOK, str(tool)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=TIMEOUT_S, check=True)
        assert done.stdout == f"{expected}\n"


def test_what_is_no_ordinary_program(place: Path) -> None:
    tool = place / "tool"
    shutil.copy("/usr/bin/id", tool)
    abi = native_abi()
    assert look_at_program(os.getpid(), os.fsencode(place / "nothing"), "nothing", abi) == Seen()
    assert look_at_program(os.getpid(), os.fsencode(place), "directory", abi) == Seen()
    assert look_at_program(os.getpid(), os.fsencode(tool), "tool", abi).is_ordinary
    tool.chmod(0o4755)
    assert not look_at_program(os.getpid(), os.fsencode(tool), "tool", abi).is_ordinary
