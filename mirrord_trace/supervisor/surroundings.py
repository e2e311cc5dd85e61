"""What of this machine a program needs as it is, read before the program starts.

The local environment says it: where programs, libraries and packages are searched, where temporary files go. Of the
variables that the process gets from the target, $PATH and $TMPDIR count, too, for there it will search and write,
here. Policy goes by text; so a place that is reached through symbolic links counts under both its names.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from mirrord_trace.policy.default_paths import Surroundings
from mirrord_trace.policy.paths import normalised
from mirrord_trace.supervisor.launch import Program

_SEARCH_PATHS: Final = (
    b"PATH LD_LIBRARY_PATH PYTHONPATH PYTHONHOME VIRTUAL_ENV CONDA_PREFIX NODE_PATH NVM_DIR GOPATH GOROOT GOBIN "
    b"GOCACHE GOMODCACHE CARGO_HOME RUSTUP_HOME JAVA_HOME CLASSPATH CATALINA_HOME MAVEN_HOME GRADLE_HOME RUBYLIB "
    b"GEM_HOME GEM_PATH BUNDLE_PATH PERL5LIB DOTNET_ROOT XDG_CACHE_HOME"
).split()
"""Variables that name directories, with colons between them, of programs and what these are made of."""
_SHEBANG_MAXIMUM: Final = 256
"""BINPRM_BUF_SIZE: so much of a script does the kernel look at (execve(2))."""
_INTERPRETERS_MAXIMUM: Final = 5
"""How often an interpreter may be a script itself (execve(2))."""


def read_surroundings(program: Program, local: Mapping[bytes, bytes]) -> Surroundings:
    """For a program that was found; `local` is this process's own environment, the program has that of the process."""
    directory = _working_directory()
    home = local.get(b"HOME", b"") or _home_of_user()
    temporary = program.environment.get(b"TMPDIR", b"") or local.get(b"TMPDIR", b"") or b"/tmp"
    searched = [
        *(local.get(name, b"") for name in _SEARCH_PATHS),
        program.environment.get(b"PATH", b""),
    ]
    more = [local.get(b"TMPDIR", b""), os.path.realpath(temporary)]
    logical = local.get(b"PWD", b"")
    if logical.startswith(b"/") and _is_same(logical, directory):
        more.append(logical)
    executable = _absolute(program.path, directory)
    return Surroundings(
        working_directory=directory,
        home=_absolute(home, directory),
        executable=executable,
        temporary=_absolute(temporary, directory),
        search_path=tuple(_members(searched, directory)),
        other_names=tuple(dict.fromkeys(_absolute(name, directory) for name in more if name)),
        programs=programs_executed_with(executable),
    )


def programs_executed_with(path: bytes) -> tuple[bytes, ...]:
    """What the kernel or a program itself will take for part of a program that is executed: files of this machine.

    They are the file that `path` leads to, the interpreter that a script names, and what that leads to.
    """
    found: dict[bytes, None] = {}
    for _ in range(_INTERPRETERS_MAXIMUM):
        found[path] = None
        found[os.path.realpath(path)] = None
        interpreter = _interpreter(path)
        if interpreter is None:
            break
        path = normalised(interpreter)
    return tuple(found)


def _interpreter(path: bytes) -> bytes | None:
    """What the first line of a script names; None for other files, and what cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            beginning = os.read(descriptor, _SHEBANG_MAXIMUM)
        finally:
            os.close(descriptor)
    except OSError:
        return None
    if not beginning.startswith(b"#!"):
        return None
    words = beginning[2:].split(b"\n", 1)[0].split(None, 1)
    return words[0] if words and words[0].startswith(b"/") else None


def _working_directory() -> bytes:
    """The root, which is nobody's in particular, if the directory has been removed."""
    try:
        return os.getcwdb()
    except FileNotFoundError:
        return b"/"


def _home_of_user() -> bytes:
    try:
        return os.fsencode(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return b""


def _members(values: Iterable[bytes], directory: bytes) -> Iterator[bytes]:
    """The directories in search paths, each once."""
    seen = set()
    for value in values:
        for member in value.split(b":"):
            place = _absolute(member.removesuffix(b"/*"), directory) if member else b""
            if place not in seen and place not in (b"", b"/"):
                seen.add(place)
                yield place


def _absolute(path: bytes, directory: bytes) -> bytes:
    return normalised(os.path.join(directory, path)) if path else b""


def _is_same(one: bytes, other: bytes) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False
