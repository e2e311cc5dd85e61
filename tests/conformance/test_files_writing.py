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
    assert outcome.value("entered") == "OK"
    assert outcome.value("reading and writing") == "OK"


def test_modes_owners_sizes_times_and_attributes_are_set(changing: ChangingWorld, library: str) -> None:
    outcome = changing.change([build.c_program("file_setting", library)], f"{CHANGES}/setting")
    assert outcome.value("replace nothing") == "ENODATA"


def test_files_without_a_name_and_inherited_rights(changing: ChangingWorld, library: str) -> None:
    outcome = changing.change([build.c_program("file_unnamed", library)], f"{CHANGES}/unnamed")
    assert outcome.value("link of the descriptor") == "OK"
    assert outcome.value("acl of open") == "OK"


def test_every_way_to_write(changing: ChangingWorld, library: str) -> None:
    outcome = changing.change([build.c_program("file_writing", library)], f"{CHANGES}/writing")
    assert outcome.value("store after a write") == "7 written"


def test_what_a_program_does_is_what_inotify_tells_it(changing: ChangingWorld) -> None:
    outcome = changing.change([build.c_program("file_watching", "glibc")], f"{CHANGES}/watching")
    assert outcome.value("rename") == "[directory from again new] [directory to other same] [file move-self]"


def test_tools_editors_databases_and_git(changing: ChangingWorld) -> None:
    outcome = changing.change(build.shell_program("file_editing"), f"{CHANGES}/editing")
    failed = [line for line in outcome.lines if line.startswith("-> ") and line != "-> 0"]
    # What is there already, what is not there, and what is full.
    assert failed == ["-> 1"] * 7
    assert {"500|250500", "ok", "29 files changed, 1 insertion(+)"} <= set(map(str.strip, outcome.lines))


def test_go_writes(changing: ChangingWorld) -> None:
    outcome = changing.change([build.go_program("filechanges")], f"{CHANGES}/go")
    assert {"98890 true <nil>", "log 1440 160", "copied 5243003 <nil>", "exclusive true true"} <= set(outcome.lines)
    assert outcome.lines.count("RemoveAll OK") == 2


def test_python_writes(changing: ChangingWorld) -> None:
    outcome = changing.change(build.python_program("file_writing"), f"{CHANGES}/python")
    assert "counter 60" in outcome.lines


def test_node_writes(changing: ChangingWorld) -> None:
    outcome = changing.change(build.node_program("filechanges"), f"{CHANGES}/node")
    assert {"copyFile OK", "rename over OK", "208890 true 600", "200 2000", "rm OK"} <= set(outcome.lines)


def test_a_pattern_lets_write_where_the_mode_does_not(changing: ChangingWorld) -> None:
    options = ["--fs-mode", "read", "--fs-read-write", f"^{CHANGES}/pattern(/|$)"]
    script = 'cd "$0" && echo one > file && sed -i s/one/two/ file && mkdir directory && mv file directory && ls -R'
    outcome = changing.change(["/bin/sh", "-c", script], f"{CHANGES}/pattern", options=options)
    assert outcome.lines == [".:", "directory", "", "./directory:", "file"]
