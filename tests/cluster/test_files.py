"""The files of a pod in a cluster, for a program that runs here: what it prints is what it prints in the container."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.cluster.file_pods import (
    ACCOUNT,
    CONTAINERS,
    NAMESPACE,
    POD,
    PYTHON,
    FilesPod,
    Way,
    assert_same,
    c_program,
    files_pod,
    go_program,
    script,
    tree_command,
)
from tests.cluster.running import run
from tests.cluster.standin.kinds import CONFIG_MAPS
from tests.conformance.file_worlds import CHANGES, DATA, EXACT
from tests.conformance.harness import Outcome

NOTIFY, PTRACE = Way("job", "notify", "fuse"), Way("ephemeral", "ptrace", "fuse")
COPY = Way("job", "notify", "copy")
WAYS = pytest.mark.parametrize("way", [NOTIFY, PTRACE, COPY], ids=str)
FUSE_WAYS = pytest.mark.parametrize("way", [NOTIFY, PTRACE], ids=str)


@pytest.fixture(scope="module")
def pod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FilesPod]:
    """One for all tests of the module: they change nothing but below `CHANGES`."""
    with files_pod(tmp_path_factory.mktemp("files")) as pod:
        yield pod


def shell(text: str) -> list[str]:
    return ["/bin/sh", "-c", f"exec 2>&1; export LC_ALL=C; {text}"]


# Reading.

WHOLE = ("--fs-read-only", f"^{DATA}/")
"""For programs that look at everything: names as `x.py` are this machine's unless one says otherwise."""


@WAYS
def test_what_shells_do(pod: FilesPod, way: Way) -> None:
    outcome = pod.compare(way, "root", script(pod, "file_shell.sh", DATA))
    assert outcome.lines[1:3] == ["small", DATA]


@pytest.mark.parametrize("way", [NOTIFY, COPY], ids=str)
def test_the_usual_tools(pod: FilesPod, way: Way) -> None:
    outcome = pod.compare(way, "root", script(pod, "file_tools.sh", DATA), *WHOLE)
    assert "20000|24998750.0|item 0" in outcome.lines


@WAYS
def test_go_reads(pod: FilesPod, way: Way) -> None:
    outcome = pod.compare(way, "root", go_program(pod, "files", DATA), *WHOLE)
    assert "copied 5243003 OK" in outcome.lines


def test_python_reads(pod: FilesPod) -> None:
    outcome = pod.compare(PTRACE, "root", script(pod, "file_reading.py", DATA), *WHOLE)
    assert "copyfile True" in outcome.lines


@FUSE_WAYS
def test_what_only_a_file_system_can_show(pod: FilesPod, way: Way) -> None:
    outcome = pod.compare(way, "root", script(pod, "file_exact.sh", EXACT))
    assert outcome.lines[0].startswith("set-id regular file 6755 0:0 6 1 2020-")


# What is mounted in the pod.

VOLUMES = f"""
for directory in /srv/volume /opt/volume /etc/shop {ACCOUNT} /run/${{0#/var/run/}}; do
    cd "$directory" && pwd && ls -A && readlink ..data || exit 97
    for name in *; do
        echo "$name is a link to $(readlink "$name"):"
        cat "$name" && echo && cmp "$name" "..data/$name" && cmp "$name" "$directory/$name" || exit 98
    done
    find "$PWD" -printf '%p %y %m %U:%G %s %T@ %l\\n' | sort
    find -L . -type f | sort
    grep -r . . | sort
done
cat /etc/shop.ini
"""


@pytest.mark.parametrize(("way", "container"), [(NOTIFY, "root"), (PTRACE, "user"), (COPY, "user")], ids=str)
def test_volumes_and_tokens(pod: FilesPod, way: Way, container: str) -> None:
    """Wherever they are mounted, below this machine's own directories, too."""
    outcome = pod.compare(way, container, [*shell(VOLUMES), ACCOUNT])
    assert outcome.exit_status == 0, outcome.stdout
    assert "token is a link to ..data/token:" in outcome.lines
    assert f"token-of:{NAMESPACE}:default:0" in outcome.lines
    assert outcome.lines[-2:] == ["[shop]", "name = Stand-in"]


@WAYS
def test_what_rotates_is_seen(pod: FilesPod, way: Way) -> None:
    """By who looks again: the kubelet replaces the link ..data."""
    pod.cluster.patch(CONFIG_MAPS, NAMESPACE, "settings", {"data": {"key": "one\n"}})
    watch = (
        "cd /opt/volume; grep -q one key && echo ready; until grep -q two key; do :; done; cat /srv/volume/..data/key"
    )
    with run(pod.kubeconfig, "-q", "-t", f"pod/{POD}", *way.options, "--", *shell(watch)) as running:
        running.wait_ready()
        pod.cluster.patch(CONFIG_MAPS, NAMESPACE, "settings", {"data": {"key": "two\n"}})
        assert running.wait() == 0, running.told
        assert running.process.stdout is not None
        assert running.process.stdout.read() == "two\n"


# Whose files are written.

_ANOTHER_SRV = """
mount --rbind /srv /mnt && mount -t tmpfs here /srv && mkdir /srv/data || exit 99
for other in /mnt/*/; do
    name=${other#/mnt/}
    test -d "$other" && test "$name" != data/ && mkdir "/srv/$name" && mount --rbind "$other" "/srv/$name"
done
exec "$@"
"""
HERE = ["unshare", "--mount", "sh", "-c", _ANOTHER_SRV, "sh"]
"""Runs the tool where this machine has a directory that the pod has, too, and nobody else sees that."""


@WAYS
def test_what_is_written_is_written_here(pod: FilesPod, way: Way) -> None:
    before = pod.prepare("root", *tree_command(pod, "snapshot", DATA))
    script = """
        cd /srv/data && echo here > new && cat new a/small.txt && mv new newer && cat newer && rm newer && cat newer
        echo x > a/small.txt; rm a/small.txt; mkdir a/new; chmod 600 a/small.txt; mv a/small.txt other
        echo x > /opt/volume/new; cat a/small.txt
    """
    done = pod.traced(way, "root", shell(script), before=HERE)
    assert done.lines == [
        *("here", "small", "here", "cat: newer: No such file or directory"),
        # There is no a/ here in which anything could be made.
        "/bin/sh: 3: cannot create a/small.txt: Directory nonexistent",
        "rm: cannot remove 'a/small.txt': Read-only file system",
        "mkdir: cannot create directory 'a/new': No such file or directory",
        "chmod: changing permissions of 'a/small.txt': Read-only file system",
        "mv: cannot move 'a/small.txt' to 'other': Read-only file system",
        "/bin/sh: 4: cannot create /opt/volume/new: Directory nonexistent",
        "small",
    ]
    assert pod.prepare("root", *tree_command(pod, "snapshot", DATA)) == before


@FUSE_WAYS
def test_nothing_of_the_pod_where_everything_is_to_be_local(pod: FilesPod, way: Way) -> None:
    paths = (f"{DATA}/a/small.txt", "/srv/volume/key", "/opt/volume/key", "/etc/shop.ini", f"{ACCOUNT}/token")
    done = pod.traced(way, "root", ["cat", *paths], "--fs-mode", "local")
    assert done.stdout == ""
    assert done.stderr.splitlines() == [f"cat: {path}: No such file or directory" for path in paths]


def compare_changes(
    pod: FilesPod, way: Way, container: str, command: Sequence[str | Path], directory: str, prepare: str = ""
) -> Outcome:
    """Runs a program that changes a directory, in the container and then here: it must say and leave the same."""

    def make() -> None:
        pod.prepare(container, *tree_command(pod, "reset", directory))
        pod.prepare(container, "/bin/sh", "-c", f"cd {directory} || exit; {prepare}")

    make()
    native = pod.native(container, [*command, directory])
    left = pod.prepare(container, *tree_command(pod, "snapshot", directory))
    make()
    traced = pod.traced(way, container, [*command, directory], "--fs-mode", "write")
    assert_same(native, traced)
    assert pod.prepare(container, *tree_command(pod, "snapshot", directory)).splitlines() == left.splitlines()
    return traced


@FUSE_WAYS
def test_entries_are_made_linked_renamed_and_removed_in_the_pod(pod: FilesPod, way: Way) -> None:
    outcome = compare_changes(pod, way, "root", c_program(pod, "file_making"), "/scratch/making")
    assert outcome.value("link from elsewhere") == "EXDEV"


def test_tools_editors_databases_and_git_write(pod: FilesPod) -> None:
    outcome = compare_changes(pod, PTRACE, "root", script(pod, "file_editing.sh"), f"{CHANGES}/editing")
    assert outcome.exit_status == 0


def test_go_writes(pod: FilesPod) -> None:
    outcome = compare_changes(pod, NOTIFY, "root", go_program(pod, "filechanges"), f"{CHANGES}/go")
    assert outcome.exit_status == 0


@FUSE_WAYS
def test_volumes_are_written_as_far_as_the_pod_may(pod: FilesPod, way: Way) -> None:
    outcome = compare_changes(
        pod,
        way,
        "user",
        shell(
            """
            cd "$0" && echo one > file && mv file other && ln -s other link && mkdir -m 750 directory && cat link
            for path in /etc/shop/new /etc/shop.ini /opt/volume/new; do echo x > $path; done
            rm /etc/shop/key; cp other /etc/shop/; mv other /etc/shop/key
            """
        ),
        "/scratch/volume",
        prepare="chown 1000:1000 .",
    )
    assert "/scratch/volume: 3: cannot create /etc/shop.ini: Read-only file system" in outcome.lines


RIGHTS = """
mkdir own of-others sticky && chown 1000:1000 own && chmod 1777 sticky &&
touch of-others/file of-others/writable sticky/file && chmod 666 of-others/writable
"""


@FUSE_WAYS
@pytest.mark.parametrize(
    ("container", "line"),
    [
        ("root", "modes/none: stat OK, open OK"),
        ("bare", "modes/none: stat OK, open EACCES"),
        ("user", "modes/none: stat OK, open EACCES"),
    ],
)
def test_the_rights_are_those_of_the_container(pod: FilesPod, way: Way, container: str, line: str) -> None:
    """The agent has the capabilities that containers have: to do what the target may, and for no more."""
    outcome = compare_changes(pod, way, container, c_program(pod, "file_rights", DATA), f"{CHANGES}/rights", RIGHTS)
    assert line in outcome.stdout


CAPABLE = """
import os, struct, sys
os.chdir(sys.argv[1])
with open("program", "w"): pass
# Revision 2, effective; CAP_NET_RAW (linux/capability.h, vfs_cap_data).
value = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)
try:
    os.setxattr("program", "security.capability", value)
except PermissionError as error:
    print(error)
else:
    print(os.getxattr("program", "security.capability") == value)
"""


@pytest.mark.parametrize(
    ("container", "told"), [("root", "True"), ("bare", "[Errno 1] Operation not permitted: 'program'")]
)
def test_capabilities_of_files_are_set_where_the_container_may(pod: FilesPod, container: str, told: str) -> None:
    outcome = compare_changes(pod, NOTIFY, container, [*PYTHON, "-c", CAPABLE], f"{CHANGES}/capable")
    assert outcome.lines == [told]


@pytest.mark.parametrize("container", CONTAINERS)
def test_rights_where_files_are_only_read(pod: FilesPod, container: str) -> None:
    """A copy is made of nothing that the target may not read."""
    text = (
        "cat modes/* owners/*; ls modes/private-directory owners/theirs modes/unsearchable-directory; cd owners/theirs"
    )
    outcome = pod.compare(COPY, container, shell(f"cd {DATA} && {text} && pwd"))
    assert (outcome.lines[-1] == f"{DATA}/owners/theirs") == (container != "bare")
