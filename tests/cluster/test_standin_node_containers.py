"""Containers of the stand-in's nodes: what they see, what they may, and who sees them."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path

import pytest
import trio

from tests.cluster.container_pods import SLEEP, first_line, pod_on, running_node, running_pod
from tests.cluster.standin.containers import kernel
from tests.cluster.standin.containers.client import RuntimeRefused
from tests.cluster.standin.containers.network import within
from tests.cluster.standin.containers.specification import DEFAULT_CAPABILITIES, Mount, Processes
from tests.cluster.standin.shop import AGENT_ROOT
from tests.mirrord_agent.support import in_trio

NETWORK_COOKIE = 71
"""SO_NETNS_COOKIE: which network namespace a socket is of (asm-generic/socket.h)."""


# What a container sees.


@in_trio
async def test_a_container_has_a_root_processes_and_a_name_of_its_own(tmp_path: Path) -> None:
    async with running_pod(tmp_path) as pod:
        seen = await pod.ask("[os.getpid(), os.uname().nodename, sorted(os.listdir('/')), os.listdir('/proc/self/fd')]")
    assert isinstance(seen, list)
    number, name, root, descriptors = seen
    assert number == 1
    assert name.startswith("web-")
    assert root == sorted(os.listdir(AGENT_ROOT))
    # Standard ones, and the directory that is being listed.
    assert descriptors == ["0", "1", "2", "3"]


@in_trio
async def test_its_cgroup_names_it_for_others_and_is_the_root_for_itself(tmp_path: Path) -> None:
    async with running_pod(tmp_path) as pod:
        identity, pid, _ = await pod.start(SLEEP)
        with open(f"/proc/{pid}/cgroup") as file:  # noqa: ASYNC230 (procfs)
            unified = next(line.rstrip() for line in file if line.startswith("0::"))
        assert unified.endswith(f"/kubepods.slice/cri-containerd-{identity}.scope")
        assert "\n0::/\n" in "\n" + await pod.run("print(open('/proc/self/cgroup').read())")


@in_trio
async def test_what_it_writes_is_its_own(tmp_path: Path) -> None:
    before = sorted(os.listdir(AGENT_ROOT))
    async with running_pod(tmp_path) as pod:
        await pod.run("open('/new', 'w').write('x'); import os; os.remove('/usr/bin/mirrord-agent')")
        assert await pod.ask("os.path.exists('/new')") is False
    assert sorted(os.listdir(AGENT_ROOT)) == before
    assert os.access(AGENT_ROOT / "usr/bin/mirrord-agent", os.X_OK)


@in_trio
async def test_files_volumes_and_variables_are_as_asked(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "key").write_text("value")
    async with running_pod(tmp_path) as pod:
        seen = await pod.ask(
            "[open('/srv/x').read(), open('/usr/lib/v/key').read(), os.environ['COLOUR'], os.getcwd(), os.getuid(), "
            "os.getgid(), os.getgroups()]",
            files={"/srv/x": b"of the image"},
            # /lib is a link, which leads to the container's /usr/lib.
            mounts=(Mount(str(volume), "/lib/v"),),
            environment={"COLOUR": "green"},
            directory="/work",
            user=1000,
            group=1001,
            groups=(1002,),
        )
        refused = "import errno, os\ntry: open('/run/v/new', 'w')\nexcept OSError as e: print(errno.errorcode[e.errno])"
        assert await pod.run(refused, mounts=(Mount(str(volume), "/run/v", read_only=True),)) == "EROFS\n"
    assert seen == ["of the image", "value", "green", "/work", 1000, 1001, [1002]]


# What a container may.


def capabilities_of(status: str) -> dict[str, frozenset[str]]:
    """Sets of capabilities by their names in /proc/PID/status."""
    sets = {}
    for line in status.splitlines():
        name, _, mask = line.partition(":")
        if name.startswith("Cap"):
            held = int(mask, 16)
            sets[name] = frozenset(one for bit, one in enumerate(kernel.CAPABILITIES) if held >> bit & 1)
    return sets


OURS = capabilities_of(Path("/proc/self/status").read_text())["CapBnd"]
AGENTS = frozenset({"SYS_PTRACE", "SYS_ADMIN", "NET_ADMIN", "NET_RAW"})
READ_STATUS = "print(open('/proc/self/status').read())"


@pytest.mark.parametrize(
    ("fields", "bounding", "effective"),
    [
        ({}, DEFAULT_CAPABILITIES, DEFAULT_CAPABILITIES),
        ({"capabilities": AGENTS}, AGENTS, AGENTS),
        ({"capabilities": frozenset()}, frozenset(), frozenset()),
        ({"privileged": True}, OURS, OURS),
        ({"user": 1000}, DEFAULT_CAPABILITIES, frozenset()),
    ],
    ids=["default", "agent's", "none", "privileged", "ordinary user"],
)
def test_it_has_exactly_the_capabilities_it_was_given(
    tmp_path: Path, fields: Mapping[str, object], bounding: frozenset[str], effective: frozenset[str]
) -> None:
    async def ask() -> str:
        async with running_pod(tmp_path) as pod:
            return await pod.run(READ_STATUS, **fields)

    sets = capabilities_of(trio.run(ask))
    assert sets["CapBnd"] == bounding & OURS
    assert sets["CapEff"] == sets["CapPrm"] == effective & OURS
    assert not sets["CapInh"]
    assert not sets["CapAmb"]


@in_trio
async def test_no_new_privileges_and_a_read_only_root_are_as_asked(tmp_path: Path) -> None:
    async with running_pod(tmp_path) as pod:
        assert "NoNewPrivs:\t0" in await pod.run(READ_STATUS)
        assert "NoNewPrivs:\t1" in await pod.run(READ_STATUS, no_new_privileges=True)
        write = "import errno\ntry: open('/new', 'w')\nexcept OSError as e: print(errno.errorcode[e.errno])"
        assert await pod.run(write) == ""
        assert await pod.run(write, read_only_root=True) == "EROFS\n"


@in_trio
async def test_kernel_settings_are_read_only_unless_it_is_privileged(tmp_path: Path) -> None:
    write = (
        "import errno\n"
        "try: open('/proc/sys/net/ipv4/ip_default_ttl', 'w').write('64'); print('written')\n"
        "except OSError as e: print(errno.errorcode[e.errno])"
    )
    async with running_pod(tmp_path) as pod:
        assert await pod.run(write) == "EROFS\n"
        assert await pod.run(write, privileged=True) == "written\n"


# Who sees whom.


@in_trio
async def test_pids_are_shared_as_asked(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node, pod_on(node) as pod:
        target, _, _ = await pod.start(SLEEP)
        names = "[open(f'/proc/{n}/cmdline').read() for n in os.listdir('/proc') if n.isdigit()]"
        assert len(list(await pod.ask(names))) == 1  # type: ignore[call-overload]
        beside = await pod.ask(names, processes=target)
        assert isinstance(beside, list)
        assert sum(SLEEP in command for command in beside) == 1
        assert len(beside) == 2
        with_node = await pod.ask(names, processes=Processes.NODE)
        assert isinstance(with_node, list)
        assert sum(SLEEP in command for command in with_node) == 1
        # The node's process 1, the pod's sandbox, the target, itself.
        assert len(with_node) == 4
        assert await pod.ask("[os.getpid(), open('/proc/1/comm').read()]", processes=Processes.SANDBOX) == [
            2,
            "pause\n",
        ]


@in_trio
async def test_a_container_that_joins_one_that_has_ended_is_refused(tmp_path: Path) -> None:
    async with running_pod(tmp_path) as pod:
        target, _, _ = await pod.start("pass")
        await pod.node.wait(target)
        with pytest.raises(RuntimeRefused, match=f"container {target} is not running"):
            await pod.start(SLEEP, processes=target)


@in_trio
async def test_pods_reach_each_other_by_their_addresses_and_nobody_else(tmp_path: Path) -> None:
    server = "import socket; s = socket.create_server(('', 80)); print('ready', flush=True); s.accept()[0].send(b'hey')"
    ask = "import socket; s = socket.create_connection(('{}', 80)); print(s.getsockname()[0], s.recv(10).decode())"
    beyond = "import errno, socket\nprint(errno.errorcode[socket.socket().connect_ex(('192.0.2.1', 80))])"
    async with running_node(tmp_path) as node, pod_on(node) as web, pod_on(node) as shop:
        _, _, log = await web.start(server)
        assert await first_line(log) == "ready"
        assert await shop.run(ask.format(web.address)) == f"{shop.address} hey\n"
        assert await shop.run(beyond) == "ENETUNREACH\n"


@in_trio
async def test_containers_of_a_pod_share_its_network(tmp_path: Path) -> None:
    server = "import socket; s = socket.create_server(('127.0.0.1', 80)); print('ready', flush=True); s.accept()"
    async with running_pod(tmp_path) as pod:
        _, _, log = await pod.start(server)
        assert await first_line(log) == "ready"
        await pod.run("import socket; socket.create_connection(('127.0.0.1', 80))")


@in_trio
async def test_a_socket_made_within_a_pod_stays_there(tmp_path: Path) -> None:
    server = (
        "import socket; s = socket.create_server(('127.0.0.1', 80)); print('ready', flush=True); "
        "s.accept()[0].send(b'hey')"
    )
    async with running_pod(tmp_path) as pod:
        _, _, log = await pod.start(server)
        assert await first_line(log) == "ready"
        made_before = socket.socket()
        with within(pod.network):
            connection = trio.socket.socket()
        with connection, made_before, socket.socket() as made_after:
            await connection.connect(("127.0.0.1", 80))
            assert await connection.recv(10) == b"hey"
            theirs, before, after = (
                one.getsockopt(socket.SOL_SOCKET, NETWORK_COOKIE, 8) for one in (connection, made_before, made_after)
            )
        assert before == after != theirs
