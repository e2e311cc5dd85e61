"""Whose files a program gets, with whose rights, and what it sees of those that others change meanwhile."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conformance import build
from tests.conformance.file_worlds import (
    CHANGES,
    DATA,
    TREES,
    ChangingWorld,
    FileWorld,
    in_pod,
    left_over,
    tree_command,
)
from tests.conformance.harness import descendants, nothing_left, run_outside, tool_command
from tests.conformance.pods import ConformancePod
from tests.rights import as_user

FILE, TEXT = f"{DATA}/a/small.txt", f"{DATA}/text/1/1.txt"
KEY, ONE, TWO, ELSEWHERE = "/opt/volume/key", "/pod-only/one", "/pod-only/two", "/elsewhere/small.txt"
ORDINARY_USER = 1000


@pytest.fixture(params=TREES)
def traced(
    request: pytest.FixtureRequest, delivery: str, pod_with_files: ConformancePod, outside: ConformancePod
) -> FileWorld:
    """Under the tool only: what is expected there is not what happens in the pod."""
    return FileWorld(delivery, pod_with_files, outside, {}, request.param)


def shell(world: FileWorld, script: str, *options: str) -> list[str]:
    """The lines that a script prints under the tool; it gets the tree's root as $0."""
    done = run_outside(world.command(["/bin/sh", "-c", f"exec 2>&1; export LC_ALL=C; {script}", DATA], options))
    assert not left_over()
    return done.stdout.splitlines()


def test_what_may_only_be_read_is_not_changed(traced: FileWorld) -> None:
    before = in_pod(traced.pod, *tree_command("snapshot", DATA))
    done = run_outside(traced.command([*build.python_program("file_refused"), DATA]))
    assert done.exit_status == 0, done.stderr
    told = dict(line.split(": ") for line in done.stdout.splitlines() if ": " in line)
    # Opening for writing and making are this machine's, where there is no such directory.
    here = {"write", "read and write", "truncate on open", "create", "create exclusively", "mkdir", "mknod", "symlink"}
    here |= {"relative write", "relative create", "relative mkdir", "write below a descriptor"}
    nothing = {"unlink of nothing", "rmdir of nothing", "chmod of nothing", "mkdir of what is there"}
    here |= {"rename from this machine", "link from this machine"}
    between = {"rename to this machine", "link to this machine"}
    assert {name: text for name, text in told.items() if name in here | nothing and text != "ENOENT"} == {}
    assert {name: text for name, text in told.items() if name in between and text != "EXDEV"} == {}
    assert here | nothing | between <= told.keys()
    others = {name: text for name, text in told.items() if name not in here | nothing | between}
    assert others.pop("ftruncate") == "EINVAL"
    by_descriptor = {"fchmod", "fchown", "futimens", "fsetxattr", "fchmod of a directory"}
    if traced.tree == "copy":
        # Who has an open copy may change the copy.
        assert {others.pop(name) for name in by_descriptor} == {"OK"}
    assert len(others) >= 15
    assert set(others.values()) == {"EROFS"}, others
    assert done.stdout.splitlines()[-1] == "still 6 ['page', 'small.txt']"
    assert in_pod(traced.pod, *tree_command("snapshot", DATA)) == before


def test_patterns_say_whose_files_they_are(
    delivery: str, pod_with_files: ConformancePod, outside: ConformancePod
) -> None:
    world = FileWorld(delivery, pod_with_files, outside, {}, "auto")
    script = f"cat {FILE} {TEXT} {KEY} {ONE} {TWO} {ELSEWHERE} | cut -c -20; echo {DATA}/a/s*; cd {DATA}/a && pwd"

    def missing(*paths: str) -> set[str]:
        return {f"cat: {path}: No such file or directory" for path in paths}

    lines = shell(world, script)
    assert {"small", "00 line 0 of text 1", "one", "first", "second", FILE, f"{DATA}/a"} < set(lines)
    assert {line for line in lines if line.startswith("cat: ")} == missing(ELSEWHERE)

    options = ["--fs-not-found", "/A/small", "--fs-local", "^/pod-only/t", "--fs-mapping", "^/elsewhere/", f"{DATA}/a/"]
    lines = shell(world, script, *options)
    # What is mapped is what counts: it is not found under its new name.
    assert {line for line in lines if line.startswith("cat: ")} == missing(FILE, TWO, ELSEWHERE)
    lines = shell(world, f"cat {ELSEWHERE}", *options[4:])
    assert lines == ["small"]

    lines = shell(world, script, "--fs-mode", "local")
    assert {line for line in lines if line.startswith("cat: ")} == missing(FILE, TEXT, KEY, ONE, TWO, ELSEWHERE)
    assert f"{DATA}/a/s*" in lines

    lines = shell(world, script, "--fs-mode", "localwithoverrides", "--fs-read-only", "^/pod-only/o")
    # What the pod has mounted is an override, too.
    assert {"one", "first", "small"} < set(lines)
    assert {line for line in lines if line.startswith("cat: ")} == missing(TWO, ELSEWHERE)


def test_what_the_pod_has_mounted_is_no_override_where_it_is_not_wanted(traced: FileWorld, tmp_path: Path) -> None:
    configuration = tmp_path / "mirrord.json"
    for said, lines in (("true", ["small"]), ("false", [f"cat: {FILE}: No such file or directory"])):
        configuration.write_text(f'{{"feature": {{"fs": "localwithoverrides", "magic": {{"auto_mount": {said}}}}}}}')
        assert shell(traced, f"cat {FILE}", "-f", str(configuration)) == lines


def test_the_users_own_aws_is_set_aside(
    delivery: str, pod_with_files: ConformancePod, outside: ConformancePod, tmp_path: Path
) -> None:
    """Programs may read and write there, and are not this machine's user, unless that is wanted."""
    home, configuration = tmp_path / "home", tmp_path / "mirrord.json"
    (home / ".aws").mkdir(parents=True)
    (home / ".aws/config").write_text("mine\n")
    script = (
        'exec 2>&1; export LC_ALL=C; cat ~/.aws/config; cd ~; cat .aws/config; echo "[$AWS_PROFILE]"; '
        "mkdir -p ~/.aws/cli && echo kept > .aws/cli/cache && cat ~/.aws/cli/cache"
    )

    def lines(said: str) -> list[str]:
        configuration.write_text(f'{{"feature": {{"magic": {{"aws": {said}}}}}}}')
        command = tool_command(outside, pod_with_files, delivery, ["/bin/sh", "-c", script], ["-f", str(configuration)])
        return run_outside(["env", f"HOME={home}", "AWS_PROFILE=mine", *command]).lines

    missing = "No such file or directory"
    assert lines("true") == [f"cat: {home}/.aws/config: {missing}", f"cat: .aws/config: {missing}", "[]", "kept"]
    assert [path.name for path in (home / ".aws").iterdir()] == ["config"]
    assert not left_over()
    assert lines("false") == ["mine", "mine", "[mine]", "kept"]
    assert (home / ".aws/cli/cache").read_text() == "kept\n"


def test_what_was_written_here_is_read_here(
    delivery: str, pod_with_files: ConformancePod, outside: ConformancePod, tmp_path: Path
) -> None:
    world = FileWorld(delivery, pod_with_files, outside, {}, "auto")
    # The directory is this machine's and the pod's, which does not have the file.
    script = f"cd {tmp_path}; echo here > new; cat new; rm new; cat new; cat {TEXT} | head -c 7"
    lines = shell(world, script, "--fs-read-only", f"^{tmp_path}/")
    assert lines[0] == "here"
    assert lines[1].endswith("No such file or directory")
    assert lines[2] == "00 line"


def ordinary(pod: ConformancePod) -> int:
    """The process in the pod that has the rights of an ordinary user."""
    for pid in descendants(pod.pid):
        status = Path(f"/proc/{pid}/status").read_text()
        if f"\nUid:\t{ORDINARY_USER}\t" in status:
            return pid
    raise AssertionError("no ordinary process in the pod")


def rights_directory(pod: ConformancePod) -> str:
    """A directory to which an ordinary user has some rights."""
    directory = f"{CHANGES}/rights"
    in_pod(pod, *tree_command("reset", directory))
    script = (
        "cd $0 && mkdir own of-others sticky && chown 1000:1000 own && chmod 1777 sticky && "
        "touch of-others/file of-others/writable sticky/file && chmod 666 of-others/writable"
    )
    in_pod(pod, "/bin/sh", "-c", script, directory)
    return directory


def test_the_rights_are_those_of_the_targets_process(
    delivery: str, pod_with_files: ConformancePod, outside: ConformancePod
) -> None:
    program = [str(build.c_program("file_rights", "glibc")), DATA]
    user = as_user(ORDINARY_USER, groups=[3000])
    directory = rights_directory(pod_with_files)
    expected = in_pod(pod_with_files, *user, *program, directory)
    remains = in_pod(pod_with_files, *tree_command("snapshot", directory))
    assert "modes/none: stat OK, open EACCES" in expected
    rights_directory(pod_with_files)
    command = tool_command(outside, pod_with_files, delivery, [*program, directory], ["--fs-mode", "write"])
    command[command.index(f"pid/{pod_with_files.pid}")] = f"pid/{ordinary(pod_with_files)}"
    done = run_outside(command)
    assert (done.exit_status, done.stdout.splitlines()) == (0, expected.splitlines()), done.stderr
    assert in_pod(pod_with_files, *tree_command("snapshot", directory)) == remains


@contextmanager
def started(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A program to talk with; it has ended when the block is left."""
    with (
        nothing_left(),
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, start_new_session=True
        ) as process,
    ):
        try:
            yield process
            assert process.wait(20) == 0
        finally:
            process.kill()


def test_a_fifo_is_the_pods_and_holds_up_nothing(changing: ChangingWorld) -> None:
    script = 'cat "$0/special/fifo" & cat "$0/a/small.txt"; wait; timeout 0.2 cat "$0/special/fifo"; echo $?'
    command = ["/bin/sh", "-c", script, DATA]
    if not changing.traced:
        command = ["nsenter", f"--target={changing.pod.pid}", "--mount", "--pid", *command]
    else:
        command = changing.command(command)
    with started(command) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "small\n"
        in_pod(changing.pod, "/bin/sh", "-c", 'for i in 1 2 3; do echo "line $i"; done > "$0/special/fifo"', DATA)
        assert process.stdout.read() == "line 1\nline 2\nline 3\n124\n"


def test_a_fifo_between_two_of_the_programs_own(changing: ChangingWorld) -> None:
    script = 'cd "$0" && mkfifo fifo && { echo through a pipe > fifo & cat fifo; wait; }'
    outcome = changing.change(["/bin/sh", "-c", script], f"{CHANGES}/fifo", timeout_s=20)
    assert outcome.lines == ["through a pipe"]


BEFORE = (
    *(
        "content one",
        "size 4",
        "new FileNotFoundError",
        "link first",
        "target ..1",
        "listing ..1 ..data file going key log",
    ),
    *("entries ..1 ..data file going key log", "exists True", "going 2 links, 0 entries", "log first", "mode 100644"),
)
"""What the program that follows a directory says first."""

FOLLOWED = [
    (
        "printf 12345 > file; echo more >> log; echo new > new; chmod 600 log;"
        "mkdir ..2 && echo second > ..2/key && ln -s ..2 ..tmp && mv -T ..tmp ..data && rm -r ..1",
        ("size 5", "content 12345", "log more", "new new", "link second", "target ..2", "mode 100600"),
    ),
    (
        "echo replaced > other && mv other file; echo again >> log; rm new; touch z",
        (
            "content replaced",
            "log again",
            "new FileNotFoundError",
            "listing ..2 ..data file going key log z",
            "entries ..2 ..data file going key log z",
        ),
    ),
    ("rm file", ("exists False", "content FileNotFoundError")),
    ("mkdir file", ("exists True", "content IsADirectoryError")),
]
"""What is done in the pod, and what the program that follows it must come to see."""
OPEN_DIRECTORY_GONE = {"": "0 links, 0 entries", "fuse": "ESTALE", "copy": "2 links, 0 entries"}
"""What a directory is that the pod has removed while it was open here: in the pod, and in each tree."""


def test_changes_in_the_pod_are_seen_soon(reading: FileWorld) -> None:
    directory = f"{CHANGES}/following"
    pod = reading.pod
    in_pod(pod, *tree_command("reset", directory))

    def change(script: str) -> None:
        in_pod(pod, "/bin/sh", "-c", f"cd {directory} && {script}")

    change(
        "echo one > file && echo first > log && mkdir going ..1 && echo first > ..1/key && ln -s ..1 ..data &&"
        "ln -s ..data/key key"
    )
    program = [*build.python_program("file_following"), directory]
    if reading.traced:
        command = reading.command(program)
    else:
        command = ["nsenter", f"--target={pod.pid}", "--mount", "--pid", *program]
    with started(command) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for line in BEFORE:
            assert process.stdout.readline().strip() == line
        for script, sights in FOLLOWED:
            change(script)
            for wanted in sights:
                # A copy that is open stays what it was.
                if reading.tree == "copy" and wanted.startswith(("log ", "entries ")):
                    continue
                process.stdin.write(f"{wanted}\n")
                assert process.stdout.readline().strip() == wanted
        change("rmdir going")
        wanted = f"going {OPEN_DIRECTORY_GONE[reading.tree]}"
        process.stdin.write(f"{wanted}\n")
        assert process.stdout.readline().strip() == wanted
        process.stdin.close()


def test_many_at_once(reading: FileWorld) -> None:
    outcome = reading.run([build.c_program("file_crowd", "glibc"), DATA])
    assert outcome.lines == ["6 children, all well"]
