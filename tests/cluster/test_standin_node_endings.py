"""Containers of the stand-in's nodes: how they end, and that nothing of them stays, whoever is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from tests.cluster.container_pods import SLEEP, first_line, running_pod, whole
from tests.cluster.standin.cluster import Cluster
from tests.cluster.standin.containers.cgroups import name_of_node
from tests.cluster.standin.containers.client import RuntimeRefused
from tests.cluster.standin.containers.specification import Processes
from tests.cluster.standin.node import Nodes
from tests.cluster.standin.shop import NEWER_WEB, OLDER_WEB, open_up, registry
from tests.mirrord_agent.support import in_trio

REPOSITORY = Path(__file__).parents[2]


def cgroup_names(directory: Path) -> list[str]:
    """The cgroups of a node, as a private mount of the hierarchy shows them."""
    program = (
        "import os, sys; from tests.cluster.standin.containers import kernel; kernel.unshare(kernel.CLONE_NEWNS); "
        "kernel.keep_mounts_to_ourselves(); kernel.mount('cgroup', sys.argv[1], 0, 'cgroup2'); "
        "print(*os.listdir(sys.argv[1]))"
    )
    place = directory / "hierarchy"
    place.mkdir(exist_ok=True)
    command = [sys.executable, "-c", program, str(place)]
    return subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=REPOSITORY, timeout=30
    ).stdout.split()


# How it ends.


@pytest.mark.parametrize(
    ("program", "status"),
    [("pass", 0), ("import sys; sys.exit(3)", 3), ("import os; os.abort()", -signal.SIGABRT)],
    ids=["good", "exit code", "signal"],
)
def test_its_end_is_told(tmp_path: Path, program: str, status: int) -> None:
    async def end() -> int:
        async with running_pod(tmp_path) as pod:
            # Process 1 of a pid namespace cannot end itself by a signal.
            identity, _, _ = await pod.start(program, processes=Processes.NODE)
            return await pod.node.wait(identity)

    assert trio.run(end) == status


@in_trio
async def test_signals_reach_it(tmp_path: Path) -> None:
    async with running_pod(tmp_path) as pod:
        polite = (
            "import signal, sys; signal.signal(15, lambda *_: sys.exit(7)); print('ready', flush=True); signal.pause()"
        )
        identity, _, log = await pod.start(polite)
        assert await first_line(log) == "ready"
        await pod.node.signal(identity, signal.SIGTERM)
        assert await pod.node.wait(identity) == 7
        identity, _, _ = await pod.start(SLEEP)
        await pod.node.signal(identity, signal.SIGKILL)
        assert await pod.node.wait(identity) == -signal.SIGKILL


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        ("nowhere", 'exec: "nowhere": executable file not found in $PATH'),
        ("/nowhere", 'exec: "/nowhere": no such file or directory'),
        ("/srv/x", 'exec: "/srv/x": permission denied'),
    ],
)
def test_a_program_that_cannot_be_started_is_refused_in_runcs_words(tmp_path: Path, argument: str, told: str) -> None:
    async def start() -> None:
        async with running_pod(tmp_path) as pod:
            with pytest.raises(RuntimeRefused) as refused:
                await pod.start("", arguments=(argument,), files={"/srv/x": b""})
            assert str(refused.value) == told

    trio.run(start)


@in_trio
async def test_what_it_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    leaving = (
        "import os, time\nreading, writing = os.pipe()\n"
        "if os.fork() == 0:\n    os.setsid(); print('left', flush=True); os.write(writing, b'x'); time.sleep(1000)\n"
        "os.read(reading, 1)"
    )
    async with running_pod(tmp_path) as pod:
        for processes in (Processes.OWN, Processes.NODE):
            identity, _, log = await pod.start(leaving, processes=processes)
            assert await pod.node.wait(identity) == 0
            # The output ends only when nobody can write to it any more.
            assert await whole(log) == "left\n"


# What stays behind: nothing.

KILLED = """
import os, sys, trio
from pathlib import Path
sys.path[:0] = {path!r}
from tests.cluster.container_pods import SLEEP, pod_on, running_node
from tests.cluster.standin.containers.specification import Processes

async def main():
    async with running_node(Path({directory!r})) as node, pod_on(node) as pod:
        pids = [(await pod.start(SLEEP, processes=kind))[1] for kind in (Processes.OWN, Processes.NODE)]
        print(*pids, flush=True)
        await node.gone.wait()

trio.run(main)
"""


def processes_of_node(first: int) -> tuple[int, int]:
    """The node's process 1 and the one that holds it, from a process of a container of its own."""
    parent = int(Path(f"/proc/{first}/stat").read_text().rpartition(")")[2].split()[1])
    return parent, int(Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.parametrize("victim", ["creator", "holder", "process 1", "creator and process 1", "creator and holder"])
def test_whatever_is_killed_nothing_stays(tmp_path: Path, victim: str) -> None:
    program = KILLED.format(path=sys.path, directory=str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=REPOSITORY) as creator:
        assert creator.stdout is not None
        containers = [int(number) for number in creator.stdout.readline().split()]
        first, holder = processes_of_node(containers[0])
        watched = [os.pidfd_open(pid) for pid in (*containers, first, holder)]
        # Where the creator stays it sees that its node is gone, and ends.
        for name, pid in (("process 1", first), ("creator", creator.pid), ("holder", holder)):
            if name in victim:
                os.kill(pid, signal.SIGKILL)
        creator.wait(30)
    for pidfd in watched:
        trio.run(wait_for_end, pidfd)
        os.close(pidfd)
    assert name_of_node(str(tmp_path / "node")) not in cgroup_names(tmp_path)
    mounts = Path("/proc/self/mountinfo").read_text()
    assert str(tmp_path) not in mounts


async def wait_for_end(pidfd: int) -> None:
    with trio.fail_after(20):
        await trio.lowlevel.wait_readable(pidfd)


def test_an_orderly_end_leaves_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        async with running_pod(tmp_path) as pod:
            await pod.start(SLEEP)
            assert name_of_node(str(tmp_path / "node")) in cgroup_names(tmp_path)

    trio.run(run)
    assert name_of_node(str(tmp_path / "node")) not in cgroup_names(tmp_path)
    assert not (tmp_path / "node").exists()


# Where it runs.

CHROOTED = """
import os, sys, trio
sys.path[:0] = {path!r}
from pathlib import Path
from mirrord_trace.targets.pod_init import attach, copy_of_mounts
from tests.cluster.standin.containers import kernel

kernel.unshare(kernel.CLONE_NEWNS)
kernel.mount("none", "/", 16384 | (1 << 18))
place = {directory!r}
copies = [(entry.name, entry.is_dir(), copy_of_mounts(entry.path)) for entry in os.scandir("/")
          if not entry.is_symlink() and entry.name not in ("sys", "proc")]
links = [(entry.name, os.readlink(entry.path)) for entry in os.scandir("/") if entry.is_symlink()]
kernel.mount("surroundings", place, 0, "tmpfs")
root = place + "/root"
os.mkdir(root)
for name, is_directory, copy in copies:
    path = root + "/" + name
    os.mkdir(path) if is_directory else open(path, "w").close()
    attach(copy, path)
for name, target in links:
    os.symlink(target, root + "/" + name)
os.mkdir(root + "/proc")
kernel.mount("proc", root + "/proc", 0, "proc")
os.chdir(root)
os.chroot(".")
assert not os.path.exists("/sys")

from tests.cluster.container_pods import running_pod

async def main():
    async with running_pod(Path({pod!r})) as pod:
        print(await pod.ask("os.uname().nodename"))

trio.run(main)
"""


def test_it_works_in_a_plain_chroot_without_sys(tmp_path: Path) -> None:
    place = tmp_path / "surroundings"
    place.mkdir()
    program = CHROOTED.format(path=sys.path, directory=str(place), pod=str(tmp_path / "pod"))
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("web-")


# Whole clusters.


def test_nothing_stays_of_a_cluster(tmp_path: Path) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    nodes = Nodes(tmp_path / "nodes", registry())
    with Cluster(tmp_path / "cluster", nodes) as cluster:
        shop = open_up(cluster, nodes)
        processes = [os.pidfd_open(shop.pid(name, "web")) for name in (OLDER_WEB, NEWER_WEB)]
        names = {name_of_node(str(tmp_path / "nodes" / name / "runtime")) for name in nodes.names}
        assert names <= set(cgroup_names(tmp_path))
    for process in processes:
        trio.run(wait_for_end, process)
        os.close(process)
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert not names & set(cgroup_names(tmp_path))


def test_a_cluster_whose_process_is_killed_leaves_nothing(tmp_path: Path) -> None:
    before = set(cgroup_names(tmp_path))
    directory = tmp_path / "standin"
    command = [sys.executable, "-m", "tests.cluster.standin", str(directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY) as process:
        assert process.stdout is not None
        assert Path(process.stdout.readline().decode().strip()).exists()
        names = {name_of_node(str(directory / "nodes" / name / "runtime")) for name in ("node-1", "node-2")}
        assert names <= set(cgroup_names(tmp_path)) - before
        holders = [os.pidfd_open(int(child)) for child in children_of(process.pid)]
        process.kill()
    # Each removes its node's cgroups before it ends.
    for holder in holders:
        trio.run(wait_for_end, holder)
        os.close(holder)
    assert not names & set(cgroup_names(tmp_path))


def children_of(pid: int) -> list[str]:
    """The processes that threads of this one have started."""
    return [child for tasks in Path(f"/proc/{pid}/task").glob("*/children") for child in tasks.read_text().split()]
