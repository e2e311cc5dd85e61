"""Compiles the C programs of `programs/` when they are needed, into build/benchmarks/.

Static where the program is to be all that is measured; dynamic where what the dynamic loader does is part of it.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

from benchmarks.errors import Unavailable

ROOT = Path(__file__).parent.parent
SOURCES = Path(__file__).with_name("programs")
OUTPUT = ROOT / "build" / "benchmarks"

_FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread")


def compiler() -> str:
    """The path of the C compiler. Raises Unavailable."""
    found = shutil.which("cc")
    if found is None:
        raise Unavailable("no C compiler: apt-get install gcc libc6-dev")
    return found


def program(name: str, *, static: bool = True) -> Path:
    """The executable of programs/NAME.c, compiled now unless it is there. Raises Unavailable with what `cc` says."""
    source = SOURCES / f"{name}.c"
    command = [compiler(), *_FLAGS, *(["-static"] if static else [])]
    digest = hashlib.sha256("\0".join(command).encode())
    for path in (source, *sorted(SOURCES.glob("*.h"))):
        digest.update(path.read_bytes())
    built = OUTPUT / "programs" / f"{name}-{digest.hexdigest()[:12]}"
    if built.exists():
        return built
    built.parent.mkdir(parents=True, exist_ok=True)
    unfinished = built.with_suffix(".unfinished")
    done = subprocess.run(
        [*command, "-o", unfinished, source], capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode != 0:
        raise Unavailable(f"cannot compile {source.name}:\n{done.stderr}")
    unfinished.rename(built)
    return built
