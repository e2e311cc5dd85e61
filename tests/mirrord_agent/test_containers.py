"""Whose cgroups and which process: decisions. Real containers are in tests/cluster/test_agent_image.py."""

import os

import pytest

from mirrord_agent.containers import Process, first_process, is_in_container, open_first_process, parse_container_id
from mirrord_agent.target import TargetUnusable

ID = "0a1b2c3d" * 8
OTHER = "f" * 64
POD = "kubepods-burstable-pod1a2b3c4d_0000_4000_8000_000000000000.slice"


@pytest.mark.parametrize(
    "cgroups",
    [
        pytest.param(f"0::/kubepods.slice/{POD}/cri-containerd-{ID}.scope", id="containerd"),
        pytest.param(f"0::/kubepods/burstable/pod1a2b3c4d-0000/{ID}", id="no systemd"),
        pytest.param(f"0::/kubepods.slice/{POD}/crio-{ID}.scope", id="CRI-O"),
        pytest.param(f"0::/kubepods.slice/{POD}/crio-{ID}.scope/container", id="crun"),
        pytest.param(f"0::/system.slice/docker-{ID}.scope", id="Docker"),
        pytest.param(f"0::/docker/{ID}", id="Docker, no systemd"),
        pytest.param(f"0::/system.slice/{POD}:cri-containerd:{ID}", id="two cgroup drivers"),
        pytest.param(f"0::/../cri-containerd-{ID}.scope", id="from a cgroup namespace"),
        pytest.param(f"0::/../../../{POD}/cri-containerd-{ID}.scope/init.scope", id="systemd inside"),
        pytest.param(f"12:cpu,cpuacct:/kubepods/pod1/{ID}\n1:name=systemd:/kubepods/pod1/{ID}\n0::/", id="version 1"),
        pytest.param(
            f"5:memory:/\n1:name=systemd:/x\n0::/kubepods.slice/cri-containerd-{ID}.scope", id="both versions"
        ),
    ],
)
def test_runtimes_name_cgroups_after_the_container(cgroups: str) -> None:
    assert is_in_container(cgroups, ID)
    assert not is_in_container(cgroups, OTHER)


@pytest.mark.parametrize(
    "cgroups",
    [
        "",
        "0::/",
        f"0::/system.slice/crio-conmon-{ID}.scope",
        f"0::/kubepods.slice/cri-containerd-{ID}0.scope",
        f"0::/kubepods.slice/cri-containerd-0{ID}.scope",
        f"0::/kubepods.slice/cri-containerd-{ID[:-1]}.scope",
        f"0::/kubepods.slice/{ID}.slice/x",
    ],
)
def test_other_cgroups_are_not_the_containers(cgroups: str) -> None:
    assert not is_in_container(cgroups, ID)


@pytest.mark.parametrize(
    ("processes", "first"),
    [
        pytest.param([], None, id="none"),
        pytest.param([Process(10, 3, 500)], 10, id="one"),
        pytest.param([Process(12, 10, 501), Process(10, 3, 500), Process(13, 12, 502)], 10, id="its children"),
        pytest.param([Process(7, 3, 900), Process(10, 3, 500)], 10, id="a later exec"),
        pytest.param([Process(1, 0, 500), Process(7, 0, 900), Process(8, 7, 901)], 1, id="its own pid namespace"),
        pytest.param([Process(9, 1, 300), Process(10, 3, 500)], 9, id="one whose parent has ended"),
        pytest.param([Process(11, 3, 500), Process(10, 3, 500)], 10, id="at the same tick"),
    ],
)
def test_the_first_process_is_the_oldest_from_outside(processes: list[Process], first: int | None) -> None:
    found = first_process(processes)
    assert (found.pid if found else None) == first


def test_an_id_may_come_with_its_runtime() -> None:
    assert parse_container_id(f"containerd://{ID}") == ID
    assert parse_container_id(ID) == ID


@pytest.mark.parametrize("text", ["", "containerd://", "short", f"../{ID}", f"{ID}/x", f"cri-{ID}"])
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="container's id"):
        parse_container_id(text)


@pytest.mark.parametrize("or_pid", [None, os.getpid()])
def test_the_agent_itself_is_never_the_target(or_pid: int | None) -> None:
    with pytest.raises(TargetUnusable, match=f"container {OTHER[:12]}"):
        open_first_process(OTHER, or_pid=or_pid, timeout_s=0)
