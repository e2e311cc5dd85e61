"""What the C compilers say of constants and layouts: zig's for both architectures, the system's for running code."""

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ZIG_TARGETS = {"x86_64": "x86_64-linux-musl", "aarch64": "aarch64-linux-musl"}


def check_in_c(architecture: str, headers: Iterable[str], claims: Iterable[str], directory: Path) -> None:
    """Compile the claims, C expressions, as static assertions. Fails with the compiler's message for a false one."""
    source = directory / f"claims-{architecture}.c"
    lines = [f"#include <{header}>" for header in headers]
    lines += [f'_Static_assert({claim}, "");' for claim in claims]
    source.write_text("\n".join(lines) + "\n")
    result = _zig(architecture, "-c", "-o", str(source.with_suffix(".o")), str(source))
    assert result.returncode == 0, result.stderr


def system_call_numbers(architecture: str) -> dict[str, int]:
    """Return the __NR_ constants of the kernel headers that zig carries for the architecture."""
    result = _zig(architecture, "-E", "-dM", "-xc", "-", text="#include <asm/unistd.h>\n")
    assert result.returncode == 0, result.stderr
    rows = re.findall(r"^#define __NR_(\w+) (\d+)$", result.stdout, re.MULTILINE)
    return {name: int(number) for name, number in rows}


def output_of(program: str, directory: Path) -> str:
    """Compile a C program for this machine, run it, and return what it prints."""
    source, binary = directory / "program.c", directory / "program"
    source.write_text(program)
    subprocess.run(["cc", "-D_GNU_SOURCE", "-o", binary, source], check=True)
    return subprocess.run([binary], check=True, capture_output=True, text=True).stdout


def _zig(architecture: str, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ziglang", "cc", "-target", ZIG_TARGETS[architecture], "-D_GNU_SOURCE"]
    return subprocess.run([*command, *arguments], input=text, capture_output=True, text=True)
