"""Programs that change the pod's files: what they print and what they leave is as in the pod."""

from __future__ import annotations

import pytest

from tests.conformance import build
from tests.conformance.file_worlds import CHANGES, ChangingWorld


@pytest.fixture
def library(changing: ChangingWorld) -> str:
    """What C programs are linked with, so that both libraries' ways of calling are run, one with each delivery."""
    return "musl" if changing.name == "ptrace" else "glibc"


def test_entries_are_made_linked_renamed_and_removed(changing: ChangingWorld, library: str) -> None:
    outcome = changing.change([build.c_program("file_making", library)], f"{CHANGES}/making")
    assert outcome.value("link from elsewhere") == "EXDEV"


def test_modes_owners_sizes_times_and_attributes_are_set(changing: ChangingWorld, library: str) -> None:
    outcome = changing.change([build.c_program("file_setting", library)], f"{CHANGES}/setting")
    assert outcome.value("replace nothing") == "ENODATA"


def test_every_way_to_write(changing: ChangingWorld, library: str) -> None:
    outcome = changing.change([build.c_program("file_writing", library)], f"{CHANGES}/writing")
    assert outcome.value("store after a write") == "7 written"


def test_what_a_program_does_is_what_inotify_tells_it(changing: ChangingWorld) -> None:
    outcome = changing.change([build.c_program("file_watching", "glibc")], f"{CHANGES}/watching")
    assert outcome.value("rename") == "[directory from again new] [directory to other same] [file move-self]"


def test_tools_editors_databases_and_git(changing: ChangingWorld) -> None:
    changing.change(build.shell_program("file_editing"), f"{CHANGES}/editing")


def test_go_writes(changing: ChangingWorld) -> None:
    changing.change([build.go_program("filechanges")], f"{CHANGES}/go")


def test_python_writes(changing: ChangingWorld) -> None:
    outcome = changing.change(build.python_program("file_writing"), f"{CHANGES}/python")
    assert "counter 60" in outcome.lines


def test_node_writes(changing: ChangingWorld) -> None:
    changing.change(build.node_program("filechanges"), f"{CHANGES}/node")


def test_a_pattern_lets_write_where_the_mode_does_not(changing: ChangingWorld) -> None:
    options = ["--fs-mode", "read", "--fs-read-write", f"^{CHANGES}/pattern(/|$)"]
    script = 'cd "$0" && echo one > file && sed -i s/one/two/ file && mkdir directory && mv file directory && ls -R'
    changing.change(["/bin/sh", "-c", script], f"{CHANGES}/pattern", options=options)
