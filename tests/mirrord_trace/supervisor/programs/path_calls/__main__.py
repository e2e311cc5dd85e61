"""`path_calls ROOT OUTPUT` makes every call that names files, on files below ROOT, and says what each did.

It is run natively on one directory, and under a delivery on another that is called ROOT only for it: the lines must be
equal. Numbers that differ from file to file (inodes, times of now) are left out.
"""

from __future__ import annotations

import os
import sys

from mirrord_syscalls.abi import ARGUMENTS, ArgumentKind
from tests.mirrord_trace.supervisor.programs.path_calls.attributes import attributes, attributes_at, file_attributes
from tests.mirrord_trace.supervisor.programs.path_calls.calling import ABI, at, made, say, work_in
from tests.mirrord_trace.supervisor.programs.path_calls.changing import changes, lengths, makes, moves, removes, watches
from tests.mirrord_trace.supervisor.programs.path_calls.itself import executes, moves_itself
from tests.mirrord_trace.supervisor.programs.path_calls.opening import opens
from tests.mirrord_trace.supervisor.programs.path_calls.reading import examines, handles
from tests.mirrord_trace.supervisor.programs.path_calls.tree import build, snapshot

LEFT_OUT = {
    "chroot": "a task's root stays this machine's: what an absolute path means there would be another thing to us",
    "open_tree": "moves mounts of this machine",
}
PARTS = (
    opens,
    examines,
    handles,
    attributes,
    attributes_at,
    file_attributes,
    makes,
    removes,
    moves,
    changes,
    lengths,
    watches,
    moves_itself,
    executes,
)


def main() -> None:
    root = os.fsencode(sys.argv[1])
    os.dup2(os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), sys.stdout.fileno())
    for part in PARTS:
        say("--", part.__name__)
        work_in(root + b"/" + part.__name__.encode())
        build()
        part()
        snapshot(at(""))
    named = {name for name, kinds in ARGUMENTS.items() if ArgumentKind.PATH in kinds and name in ABI.numbers}
    assert named == made_with_paths() | LEFT_OUT.keys() & named, "calls that nobody tries here"


def made_with_paths() -> set[str]:
    """`execves` makes its calls in children."""
    return {name for name in made if name in ARGUMENTS and ArgumentKind.PATH in ARGUMENTS[name]} | {
        "execve",
        "execveat",
    }


if __name__ == "__main__":
    main()
