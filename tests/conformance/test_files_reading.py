"""Programs that read the pod's files, in every way that there is: what they print is what they print in the pod."""

from __future__ import annotations

import pytest

from tests.conformance import build
from tests.conformance.file_worlds import DATA, EXACT, ChangingWorld, FileWorld


@pytest.fixture
def library(reading: FileWorld) -> str:
    """What C programs are linked with, so that both libraries' ways of calling are run, one with each delivery."""
    return "musl" if reading.name == "ptrace" else "glibc"


def test_every_path_means_what_it_means_in_the_pod(reading: FileWorld, library: str) -> None:
    outcome = reading.run([build.c_program("file_paths", library), DATA])
    assert "  chdir /srv/data/a, statfs OK, getxattr ENODATA" in outcome.lines
    assert outcome.value("a path of 4095 bytes") == "file 644 6"
    assert outcome.value("a path of 4096 bytes") == "ENAMETOOLONG"


def test_the_longest_path(reading: FileWorld) -> None:
    outcome = reading.run([build.c_program("file_longest", "glibc"), DATA])
    assert outcome.value("the longest path") == "4040 bytes"


def test_every_way_to_read(reading: FileWorld, library: str) -> None:
    outcome = reading.run([build.c_program("file_reading", library), DATA])
    assert outcome.value("sendfile to a pipe") == outcome.value("sendfile to a socket")
    assert outcome.value("flock") == "OK"


def test_directories_and_descriptors_that_paths_are_relative_to(reading: FileWorld, library: str) -> None:
    outcome = reading.run([build.c_program("file_descriptors", library), DATA])
    assert outcome.value("in root, /small.txt") == "OK"
    assert outcome.value("position after a child's read") == "17"
    assert outcome.lines[-2:] == ["/srv/data/a/b", "/srv/data/a"]


def test_directories_are_listed_and_walked(reading: FileWorld, library: str) -> None:
    outcome = reading.run([build.c_program("file_walk", library), DATA])
    assert "3002 and 3002 in small steps" in outcome.lines
    assert outcome.value("nftw text, changing directories") == "OK"


def test_scripts_are_executed(reading: FileWorld, library: str) -> None:
    outcome = reading.run([build.c_program("file_execute", library), DATA])
    assert "hello from hello, arguments: one two words" in outcome.lines
    assert outcome.lines[-1] == "hello from hello, arguments: found"


def test_the_usual_tools(reading: FileWorld) -> None:
    outcome = reading.run([*build.shell_program("file_tools"), DATA])
    assert "20000|24998750.0|item 0" in outcome.lines


def test_what_shells_do_themselves(reading: FileWorld) -> None:
    outcome = reading.run([*build.shell_program("file_shell"), DATA])
    assert outcome.lines[1:3] == ["small", DATA]
    assert "hello from hello, arguments: absolute" in outcome.lines


def test_what_only_a_file_system_can_show(changing: ChangingWorld) -> None:
    # It ends with a comparison of what differs.
    outcome = changing.run([*build.shell_program("file_exact"), EXACT], exit_status=1)
    assert outcome.lines[0].startswith("set-id regular file 6755 0:0 6 1 2020-")


def test_go_reads(reading: FileWorld) -> None:
    outcome = reading.run([build.go_program("files"), DATA])
    assert "copied 5243003 OK" in outcome.lines


def test_python_reads(reading: FileWorld) -> None:
    outcome = reading.run([*build.python_program("file_reading"), DATA])
    assert "copyfile True" in outcome.lines


def test_python_imports_a_package_that_only_the_pod_has(reading: FileWorld) -> None:
    # Python's files are this machine's unless one says otherwise.
    options = ["--fs-read-only", f"^{DATA}/packages/"]
    outcome = reading.run([*build.python_program("file_imports"), DATA], options=options)
    assert outcome.value("answer") == "42 43 pod_package"


def test_node_reads(reading: FileWorld) -> None:
    outcome = reading.run([*build.node_program("files"), DATA])
    assert "opendir 3000" in outcome.lines


def test_volumes_are_the_pods_also_where_this_machines_own_files_are(reading: FileWorld) -> None:
    outcome = reading.run(["/bin/cat", "/opt/volume/key", "/srv/volume/..data/key"])
    assert outcome.lines == ["one", "one"]


def test_files_whose_size_says_nothing(reading: FileWorld) -> None:
    script = 'for name in environ comm stat; do tr "\\0" "\\n" < /proc/1/$name | head -c 20 | cut -d " " -f 1,2; done'
    outcome = reading.run(["/bin/sh", "-c", script], options=["--fs-read-only", "^/proc/1/"])
    assert outcome.lines[-1].startswith("1 (")
