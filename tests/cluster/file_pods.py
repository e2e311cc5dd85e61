"""A pod whose containers have files, and programs that work on these: in a container, or here with it as target.

| container | runs as |
|---|---|
| `root` | root with the capabilities that containers have unless they are told otherwise |
| `bare` | root without any capability |
| `user` | uid and gid 1000, without any capability |

Each has the tree of `tests.conformance.file_tree` in a root of its own, and the volumes of `MOUNTS`. The programs are
in `PROGRAMS` there: those of the conformance tests, copied to where every user may read them.
"""

from __future__ import annotations

import difflib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs

from tests.cluster.commands import COMMAND
from tests.cluster.running import wait_until_nothing_is_left
from tests.cluster.running_pods import wait_for_pod
from tests.cluster.standin.cluster import Cluster
from tests.cluster.standin.node import Nodes
from tests.cluster.standin.pod_facts import is_ready
from tests.cluster.standin.shop import MACHINE_IMAGE, Shop, registry
from tests.cluster.standin.store import Object
from tests.conformance import build
from tests.conformance.file_worlds import TREE_PROGRAM, left_over
from tests.conformance.harness import Outcome
from tests.rights import as_user

NAMESPACE, POD = "shop", "files"
PROGRAMS = "/programs"
PYTHON = (os.path.realpath(sys.executable), "-I", "-B")
"""The interpreter by the name that it also has in the container."""
SHELL = ("/bin/bash",)

SETTINGS = {"key": "one\n", "shop.ini": "[shop]\nname = Stand-in\n"}
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
MOUNTS: list[Object] = [
    # A directory of the container's root; one that is this machine's by default, and one below such.
    *(
        {"name": "settings", "mountPath": path, "readOnly": True}
        for path in ("/srv/volume", "/opt/volume", "/etc/shop")
    ),
    {"name": "settings", "mountPath": "/etc/shop.ini", "subPath": "shop.ini", "readOnly": True},
    {"name": "account", "mountPath": ACCOUNT, "readOnly": True},
    {"name": "scratch", "mountPath": "/scratch"},
    {"name": "programs", "mountPath": PROGRAMS, "readOnly": True},
]
CONTAINERS: dict[str, Object] = {
    "root": {},
    "bare": {"capabilities": {"drop": ["ALL"]}},
    "user": {"runAsUser": 1000, "runAsGroup": 1000, "capabilities": {"drop": ["ALL"]}},
}


@attrs.frozen
class Way:
    """How a run reaches the files of a container."""

    mode: str
    """Of the agent."""
    delivery: str
    tree: str

    def __str__(self) -> str:
        return f"{self.mode}-{self.delivery}-{self.tree}"

    @property
    def options(self) -> list[str]:
        """What `mirrord-trace run` is told."""
        return ["--agent-mode", self.mode, "--delivery", self.delivery, "--fs-tree", self.tree]


@attrs.frozen
class FilesPod:
    """The pod, in a cluster that runs it. `programs` is the directory that it has as `PROGRAMS`."""

    cluster: Cluster
    nodes: Nodes
    kubeconfig: Path
    programs: Path

    def add(self, program: Path) -> Path:
        """Where a program is here, once it is also in the pod."""
        copy = self.programs / program.name
        if not copy.exists():
            shutil.copyfile(program, copy)
            copy.chmod(0o755)
        return copy

    def prepare(self, container: str, *command: str | Path) -> str:
        """What a command of the test itself prints in a container, with all rights that there are."""
        done = self._enter(container, [], command)
        assert done.exit_status == 0, f"{command} in {container}: {done.stderr}"
        return done.stdout

    def native(self, container: str, command: Sequence[str | Path]) -> Outcome:
        """Runs a program in a container, with the rights of the container's process."""
        lines = Path(f"/proc/{self._shop.pid(POD, container)}/status").read_text().splitlines()
        status = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
        bounding = int(status["CapBnd"][0], 16)
        kept = [f"+cap_{number}" for number in range(bounding.bit_length()) if bounding >> number & 1]
        user, group, *groups = map(int, (status["Uid"][0], status["Gid"][0], *status["Groups"]))
        capabilities = ["--inh-caps=-all", f"--bounding-set={','.join(['-all', *kept])}", "--"]
        rights = [*as_user(user, group, groups=groups), *capabilities]
        return self._enter(container, rights, command)

    def traced(
        self, way: Way, container: str, command: Sequence[str | Path], *options: str, before: Sequence[str] = ()
    ) -> Outcome:
        """Runs a program here, with a container as target; nothing of the run may be left then.

        `before` is a command line that runs the tool.
        """
        target = ("--kubeconfig", self.kubeconfig, "--target", f"pod/{POD}/container/{container}")
        line = [*before, *COMMAND, "run", "--quiet", *target, *way.options, *options, "--", *command]
        done = subprocess.run(line, capture_output=True, stdin=subprocess.DEVNULL, timeout=100, check=False)
        wait_until_nothing_is_left(self.cluster)
        assert not left_over()
        return _outcome(done)

    def compare(self, way: Way, container: str, command: Sequence[str | Path], *options: str) -> Outcome:
        """The outcome of a program with a container as target, which must be that in the container itself."""
        native = self.native(container, command)
        traced = self.traced(way, container, command, *options)
        assert_same(native, traced)
        return traced

    @property
    def _shop(self) -> Shop:
        return Shop(self.cluster, self.nodes, NAMESPACE)

    def _enter(self, container: str, rights: Sequence[str], command: Sequence[str | Path]) -> Outcome:
        here = str(self.programs)
        arguments = [*rights, *(str(part).replace(here, PROGRAMS) for part in command)]
        done = _outcome(self._shop.run_in(POD, container, arguments, timeout_s=60))
        # Programs say where they are when they complain.
        return attrs.evolve(done, stdout=done.stdout.replace(PROGRAMS, here))


def assert_same(native: Outcome, traced: Outcome) -> None:
    """Fails with what is different."""
    before, after = ([*one.lines, f"(exit status {one.exit_status})"] for one in (native, traced))
    difference = list(difflib.unified_diff(before, after, "in the container", "here", lineterm="", n=1))
    assert not difference, "\n".join([*difference, "standard error here:", traced.stderr[-4000:]])


def _outcome(done: subprocess.CompletedProcess[bytes]) -> Outcome:
    stdout, stderr = (text.decode(errors="backslashreplace") for text in (done.stdout, done.stderr))
    return Outcome(stdout, stderr, done.returncode)


@contextmanager
def files_pod(directory: Path) -> Iterator[FilesPod]:
    """A cluster with the pod, whose containers have their files."""
    programs = directory / "programs"
    programs.mkdir(mode=0o755)
    nodes = Nodes(directory / "nodes", registry(), names=["node-1"])
    with Cluster(directory / "cluster", nodes) as cluster:
        for value in _objects(programs):
            cluster.apply(value)
        wait_for_pod(cluster, is_ready, POD)
        pod = FilesPod(cluster, nodes, cluster.kubeconfig_for(namespace=NAMESPACE), programs)
        for container in CONTAINERS:
            pod.prepare(container, *tree_command(pod, "fill"))
        yield pod


def tree_command(pod: FilesPod, *arguments: str) -> list[str | Path]:
    """A command of `tests.conformance.file_tree`."""
    return [*PYTHON, pod.add(TREE_PROGRAM), *arguments]


def c_program(pod: FilesPod, name: str, *arguments: str) -> list[str | Path]:
    """The command of a program in C, which the pod has then."""
    return [pod.add(build.c_program(name, "glibc")), *arguments]


def go_program(pod: FilesPod, name: str, *arguments: str) -> list[str | Path]:
    """The command of a static program in Go, which the pod has then."""
    return [pod.add(build.go_program(name)), *arguments]


def script(pod: FilesPod, name: str, *arguments: str) -> list[str | Path]:
    """The command of a script in Python or for bash, by its file's name; the pod has it then."""
    place = pod.add(next(build.PROGRAMS.glob(f"*/{name}")))
    return [*(PYTHON if place.suffix == ".py" else SHELL), place, *arguments]


def _objects(programs: Path) -> list[Object]:
    account = [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
    ]
    volumes: list[Object] = [
        {"name": "settings", "configMap": {"name": "settings"}},
        {"name": "account", "projected": {"sources": account}},
        {"name": "scratch", "emptyDir": {}},
        {"name": "programs", "hostPath": {"path": str(programs)}},
    ]
    containers = [
        {
            "name": name,
            "image": MACHINE_IMAGE,
            "command": ["/bin/sleep", "infinity"],
            "securityContext": security,
            "volumeMounts": MOUNTS,
        }
        for name, security in CONTAINERS.items()
    ]
    spec = {"containers": containers, "volumes": volumes, "securityContext": {"supplementalGroups": [3000]}}
    named: list[tuple[str, str, Object]] = [
        ("ConfigMap", "settings", {"data": SETTINGS}),
        ("ConfigMap", "kube-root-ca.crt", {"data": {"ca.crt": "-----BEGIN CERTIFICATE-----\n"}}),
        ("ServiceAccount", "default", {}),
        ("Pod", POD, {"spec": spec}),
    ]
    return [
        {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}, **content}
        for kind, name, content in named
    ]
