"""The rules of the stand-in's nodes that need no node: names of images, phases, variables, where a pod fits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import dns.message
import dns.rcode
import pytest

from mirrord_trace.cluster.resources import PODS, SERVICES, Resource
from tests.cluster.standin.containers.specification import DEFAULT_CAPABILITIES, Container
from tests.cluster.standin.kinds import CONFIG_MAPS, SECRETS
from tests.cluster.standin.kubelet.environment import ConfigurationTrouble, environment, expand, hostname
from tests.cluster.standin.kubelet.images import Image, ImageTrouble, full_reference
from tests.cluster.standin.kubelet.status import (
    ContainerRecord,
    conditions,
    phase,
    pod_cgroup,
    quality_of_service,
    running,
    terminated,
    waiting,
)
from tests.cluster.standin.kubelet.translation import translate
from tests.cluster.standin.kubelet.volumes import write_atomically
from tests.cluster.standin.name_server import answer
from tests.cluster.standin.node import node_object
from tests.cluster.standin.scheduling import choose, rejection, tolerates
from tests.cluster.standin.store import Object, Store


def pod(name: str = "web-1", **spec: object) -> Object:
    return {
        "metadata": {"name": name, "namespace": "shop", "uid": "1-2", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "web", "image": "web:1"}], **spec},
    }


# Images.


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("web", "docker.io/library/web:latest"),
        ("web:1", "docker.io/library/web:1"),
        ("shop/web:1", "docker.io/shop/web:1"),
        ("localhost/web", "localhost/web:latest"),
        ("registry.example:5000/shop/web:1.2_3", "registry.example:5000/shop/web:1.2_3"),
        (f"web@sha256:{'0' * 64}", f"docker.io/library/web@sha256:{'0' * 64}"),
    ],
)
def test_an_image_has_a_full_name(name: str, full: str) -> None:
    assert full_reference(name) == full


@pytest.mark.parametrize("name", ["Web", "web:", "web:a:b", "-web", "web/", "web latest", "https://web"])
def test_what_is_no_name_of_an_image(name: str) -> None:
    with pytest.raises(ImageTrouble) as trouble:
        full_reference(name)
    assert trouble.value.reason == "InvalidImageName"


# Status.

WAITS, RUNS = waiting("ContainerCreating"), running()
GOOD, BAD = terminated(0, "", "0"), terminated(1, "", "0")
CRASHED: tuple[Object, Object] = (waiting("CrashLoopBackOff"), BAD)


@pytest.mark.parametrize(
    ("policy", "init", "main", "expected"),
    [
        ("Always", [], [WAITS], "Pending"),
        ("Always", [], [RUNS, WAITS], "Pending"),
        ("Always", [], [RUNS, RUNS], "Running"),
        ("Always", [], [CRASHED], "Running"),
        ("Always", [], [GOOD], "Running"),
        ("Never", [], [GOOD, GOOD], "Succeeded"),
        ("Never", [], [GOOD, BAD], "Failed"),
        ("Never", [], [RUNS, BAD], "Running"),
        ("OnFailure", [], [GOOD], "Succeeded"),
        ("OnFailure", [], [BAD], "Running"),
        ("Always", [RUNS], [WAITS], "Pending"),
        ("Always", [GOOD], [RUNS], "Running"),
        ("Never", [BAD], [WAITS], "Failed"),
        ("Always", [BAD], [WAITS], "Pending"),
    ],
)
def test_the_phase_follows_from_the_containers(
    policy: str, init: list[Object], main: list[Object | tuple[Object, Object]], expected: str
) -> None:
    def records(states: list[Object | tuple[Object, Object]]) -> list[ContainerRecord]:
        pairs = [state if isinstance(state, tuple) else (state, {}) for state in states]
        return [ContainerRecord("web", "web:1", state, last) for state, last in pairs]

    assert phase(policy, records([*init]), records(main)) == expected


def test_a_condition_that_stays_keeps_its_time() -> None:
    unready = ContainerRecord("web", "web:1", RUNS)
    before = [
        {"type": "Ready", "status": "False", "lastTransitionTime": "then"},
        {"type": "ContainersReady", "status": "True", "lastTransitionTime": "then"},
        {"type": "example.com/gate", "status": "True", "lastTransitionTime": "then"},
    ]
    found = {one["type"]: one for one in conditions(before, "Running", [], [unready])}
    assert found["Ready"]["lastTransitionTime"] == "then"
    assert found["Ready"]["reason"] == "ContainersNotReady"
    assert found["ContainersReady"]["lastTransitionTime"] != "then"
    assert found["example.com/gate"] == before[2]
    assert found["Initialized"]["status"] == "True"


@pytest.mark.parametrize(
    ("resources", "service", "directory"),
    [
        ({}, "BestEffort", "kubepods-besteffort.slice/kubepods-besteffort-pod1_2.slice"),
        ({"requests": {"cpu": "1"}}, "Burstable", "kubepods-burstable.slice/kubepods-burstable-pod1_2.slice"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}}, "Guaranteed", "kubepods-pod1_2.slice"),
        (
            {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1m"}},
            "Burstable",
            "kubepods-burstable.slice/kubepods-burstable-pod1_2.slice",
        ),
    ],
)
def test_the_cgroup_follows_from_the_resources(resources: Object, service: str, directory: str) -> None:
    described = pod(containers=[{"name": "web", "image": "web:1", "resources": resources}])
    assert quality_of_service(described) == service
    assert pod_cgroup(described) == f"kubepods.slice/{directory}"


# Configuration.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)-$(B)", "1-$(B)"),
        ("$$(A)", "$(A)"),
        ("$A ${A}", "$A ${A}"),
        ("$($(A))", "$(1)"),
    ],
)
def test_references_to_variables(text: str, expected: str) -> None:
    assert expand(text, {"A": "1"}) == expected


OBJECTS: dict[tuple[Resource, str], Object] = {
    (CONFIG_MAPS, "colours"): {"data": {"web": "green"}},
    (SECRETS, "words"): {"data": {"password": "aG9yc2U="}},
}


def find(resource: Resource, name: str) -> Object | None:
    return OBJECTS.get((resource, name))


def test_the_environment_in_its_order() -> None:
    container = {
        "envFrom": [{"configMapRef": {"name": "colours"}, "prefix": "COLOUR_"}, {"secretRef": {"name": "words"}}],
        "env": [
            {"name": "WHO", "value": "$(COLOUR_web) $(FROM_IMAGE)"},
            {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
            {"name": "NONE", "valueFrom": {"configMapKeyRef": {"name": "nowhere", "key": "x", "optional": True}}},
            {"name": "EMPTY"},
        ],
    }
    made = environment(pod(), container, {"FROM_IMAGE": "tea", "PATH": "/bin"}, find)
    for name, value in {
        "PATH": "/bin",
        "HOSTNAME": "web-1",
        "COLOUR_web": "green",
        "password": "horse",
        "WHO": "green tea",
        "APP": "web",
        "EMPTY": "",
    }.items():
        assert made[name] == value
    assert "NONE" not in made


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ({"configMapKeyRef": {"name": "nowhere", "key": "x"}}, 'configmap "nowhere" not found'),
        ({"secretKeyRef": {"name": "nowhere", "key": "x"}}, 'secret "nowhere" not found'),
        ({"secretKeyRef": {"name": "words", "key": "x"}}, "couldn't find key x in Secret shop/words"),
    ],
)
def test_what_is_missing_is_told_in_the_kubelets_words(source: Object, told: str) -> None:
    with pytest.raises(ConfigurationTrouble) as trouble:
        environment(pod(), {"env": [{"name": "X", "valueFrom": source}]}, {}, find)
    assert str(trouble.value) == told


def test_a_long_name_makes_a_shorter_host_name() -> None:
    assert hostname(pod("a" * 62 + "-" + "b" * 9)) == "a" * 62


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, DEFAULT_CAPABILITIES),
        ({"drop": ["ALL"], "add": ["SYS_PTRACE"]}, {"SYS_PTRACE"}),
        ({"drop": ["NET_RAW"]}, DEFAULT_CAPABILITIES - {"NET_RAW"}),
        ({"add": ["NET_ADMIN"]}, DEFAULT_CAPABILITIES | {"NET_ADMIN"}),
    ],
)
def test_capabilities_as_containerd_takes_them(wanted: Object, expected: frozenset[str]) -> None:
    assert translated({"securityContext": {"capabilities": wanted}}).capabilities == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ("serve", "--all")),
        ({"args": ["--one"]}, ("serve", "--one")),
        ({"command": ["other"]}, ("other",)),
        ({"command": ["other"], "args": ["$(HOSTNAME)"]}, ("other", "web-1")),
    ],
)
def test_the_program_is_the_images_unless_the_pod_names_one(fields: Object, expected: tuple[str, ...]) -> None:
    assert translated(fields).arguments == expected


def translated(fields: Object) -> Container:
    image = Image(Path("/image"), entrypoint=("serve",), command=("--all",))
    container = {"name": "web", "image": "web:1", **fields}
    return translate(pod(), container, image, identity="1" * 64, sandbox="2" * 64, target=None, volumes={}, find=find)


@pytest.mark.parametrize("files", [{"a": b"2"}, {"a": b"1", "b": b""}, {"dir/c": b"3"}, {}])
def test_a_volume_is_replaced_as_a_whole(tmp_path: Path, files: Mapping[str, bytes]) -> None:
    volume = tmp_path / "volume"
    write_atomically(str(volume), {"a": b"1", "old": b"x"})
    before = (volume / "..data").readlink()
    write_atomically(str(volume), files)
    assert (volume / "..data").readlink() != before
    seen = {str(one.relative_to(volume)): one.read_bytes() for one in volume.rglob("*") if one.is_file()}
    assert {name: data for name, data in seen.items() if not name.startswith("..")} | {
        name: (volume / name).read_bytes() for name in files
    } == dict(files)
    assert len(list(volume.iterdir())) == 2 + len({name.partition("/")[0] for name in files})


def test_a_volume_whose_content_stays_is_not_touched(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    write_atomically(str(volume), {"a": b"1"})
    before = (volume / "..data").readlink()
    write_atomically(str(volume), {"a": b"1"})
    assert (volume / "..data").readlink() == before


# Places.

UNREACHABLE = {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}


@pytest.mark.parametrize(
    ("toleration", "expected"),
    [
        ({"operator": "Exists"}, True),
        ({"operator": "Exists", "key": "node.kubernetes.io/unreachable"}, True),
        ({"operator": "Exists", "key": "other"}, False),
        ({"operator": "Exists", "effect": "NoSchedule"}, False),
        ({"key": "node.kubernetes.io/unreachable"}, True),
        ({"key": "node.kubernetes.io/unreachable", "value": "x"}, False),
    ],
)
def test_tolerations(toleration: Object, expected: bool) -> None:
    assert tolerates(pod(tolerations=[toleration]), UNREACHABLE) is expected


def a_node(name: str, **spec: object) -> Object:
    return node_object(name, "198.18.0.100") | {"spec": spec}


def asking(cpu: str) -> Object:
    container = {"name": "web", "image": "web:1", "resources": {"requests": {"cpu": cpu}}}
    return pod(containers=[container])


def test_the_emptiest_node_that_fits_is_chosen() -> None:
    nodes = [a_node("a"), a_node("b"), a_node("c", unschedulable=True)]
    assert choose(pod(), nodes, [pod(nodeName="a")]) == ("b", "")


@pytest.mark.parametrize(
    ("asked", "nodes", "told"),
    [
        (pod(), [], "no nodes available to schedule pods"),
        (
            pod(nodeSelector={"disk": "ssd"}),
            [a_node("a"), a_node("b", taints=[UNREACHABLE])],
            "0/2 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) had untolerated "
            "taint(s). no new claims to deallocate, preemption: 0/2 nodes are available: 2 Preemption is not helpful "
            "for scheduling.",
        ),
        (
            asking("64"),
            [a_node("a"), a_node("b", unschedulable=True)],
            "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) were unschedulable. no new claims to deallocate, "
            "preemption: 0/2 nodes are available: 1 No preemption victims found for incoming pod, 1 Preemption is not "
            "helpful for scheduling.",
        ),
    ],
)
def test_why_no_node_fits(asked: Object, nodes: list[Object], told: str) -> None:
    assert choose(asked, nodes, []) == (None, told)


def test_what_has_ended_takes_no_room() -> None:
    over = asking("4") | {"status": {"phase": "Succeeded"}}
    assert rejection(asking("4"), a_node("a"), [over]) is None
    refused = rejection(asking("4"), a_node("a"), [asking("500m")])
    told = "Pod was rejected: Node didn't have enough resource: cpu, requested: 4000, used: 500, capacity: 4000"
    assert refused == ("OutOfcpu", told)


# Names.


def test_the_name_server_knows_services_with_ready_pods() -> None:
    store = Store()
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    for name, status in (("web-1", {**ready, "podIP": "198.18.1.1"}), ("web-2", {"podIP": "198.18.1.2"})):
        store.put(PODS, pod(name) | {"status": status})
    service = {"metadata": {"name": "web", "namespace": "shop"}, "spec": {"selector": {"app": "web"}}}
    store.put(SERVICES, service)

    def ask(name: str, kind: str = "A") -> tuple[int, list[str]]:
        raw = answer(store, dns.message.make_query(name, kind).to_wire())
        assert raw is not None
        response = dns.message.from_wire(raw)
        return response.rcode(), [str(one) for found in response.answer for one in found]

    assert ask("web.shop.svc.cluster.local.") == (dns.rcode.NOERROR, ["198.18.1.1"])
    assert ask("web.shop.svc.cluster.local.", "AAAA") == (dns.rcode.NOERROR, [])
    assert ask("web.shop.")[0] == dns.rcode.NXDOMAIN
    assert ask("web.other.svc.cluster.local.")[0] == dns.rcode.NXDOMAIN
    assert answer(store, b"nothing") is None
