"""From a pod's container to what the runtime starts: pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..containers.kernel import CAPABILITIES
from ..containers.specification import DEFAULT_CAPABILITIES, Container, Mount, Processes
from ..store import Object
from .environment import ConfigurationTrouble, Find, environment, expand, hostname
from .images import Image
from .status import container_cgroup

RESOLVER = (
    "search {namespace}.svc.cluster.local svc.cluster.local cluster.local\nnameserver 198.18.0.10\noptions ndots:5\n"
)


def translate(
    pod: Object,
    container: Object,
    image: Image,
    *,
    identity: str,
    sandbox: str,
    target: str | None,
    volumes: Mapping[str, str],
    find: Find,
) -> Container:
    """What to start. `target` is the id of the container whose processes an ephemeral one shares.

    Raises ConfigurationTrouble.
    """
    security = pod["spec"].get("securityContext", {}) | container.get("securityContext", {})
    user = security.get("runAsUser", image.user)
    if security.get("runAsNonRoot") and user == 0:
        raise ConfigurationTrouble(
            f'container has runAsNonRoot and image will run as root (pod: "{pod["metadata"]["name"]}_'
            f'{pod["metadata"]["namespace"]}({pod["metadata"]["uid"]})", container: {container["name"]})'
        )
    variables = environment(pod, container, image.environment, find)
    variables.setdefault("HOME", "/root" if user == 0 else "/")
    groups = [*security.get("supplementalGroups", []), *([security["fsGroup"]] if "fsGroup" in security else [])]
    privileged = security.get("privileged", False)
    return Container(
        id=identity,
        sandbox=sandbox,
        cgroup=container_cgroup(pod, identity),
        root=str(image.root),
        arguments=_arguments(container, image, variables),
        files={**image.files, **_kubelets_files(pod)},
        mounts=tuple(_mounts(container, volumes, variables)),
        environment=variables,
        directory=container.get("workingDir") or image.directory,
        user=user,
        group=security.get("runAsGroup", 0),
        groups=tuple(groups),
        capabilities=_capabilities(security.get("capabilities", {})),
        privileged=privileged,
        no_new_privileges=not security.get("allowPrivilegeEscalation", True),
        read_only_root=security.get("readOnlyRootFilesystem", False),
        processes=_processes(pod, target),
    )


def _arguments(container: Object, image: Image, variables: Mapping[str, str]) -> tuple[str, ...]:
    # `command` replaces the entry point and drops the image's arguments, `args` replaces only these.
    entrypoint: Sequence[str] = container.get("command") or image.entrypoint
    default: Sequence[str] = () if container.get("command") else image.command
    arguments = [*entrypoint, *(container.get("args") or default)]
    if not arguments:
        raise ConfigurationTrouble("no command specified")
    return tuple(expand(argument, variables) for argument in arguments)


def _capabilities(wanted: Object) -> frozenset[str]:
    dropped, added = set(wanted.get("drop", [])), set(wanted.get("add", []))
    kept = frozenset() if "ALL" in dropped else DEFAULT_CAPABILITIES - dropped
    return frozenset(CAPABILITIES) if "ALL" in added else kept | added


def _processes(pod: Object, target: str | None) -> Processes | str:
    if pod["spec"].get("hostPID"):
        return Processes.NODE
    if pod["spec"].get("shareProcessNamespace"):
        return Processes.SANDBOX
    return target or Processes.OWN


def _mounts(container: Object, volumes: Mapping[str, str], variables: Mapping[str, str]) -> list[Mount]:
    mounts = []
    for mount in container.get("volumeMounts", []):
        source = volumes[mount["name"]]
        part = mount.get("subPath") or expand(mount.get("subPathExpr", ""), variables)
        if part:
            source = f"{source}/{part}"
        mounts.append(Mount(source, mount["mountPath"], mount.get("readOnly", False)))
    return mounts


def _kubelets_files(pod: Object) -> dict[str, bytes]:
    """What the kubelet writes for every pod, with its words (kubelet_pods.go, nodeHostsFileContent)."""
    lines = ["# Kubernetes-managed hosts file.", "127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback"]
    address = pod.get("status", {}).get("podIP")
    if address:
        lines.append(f"{address}\t{hostname(pod)}")
    lines += ["\t".join([alias["ip"], *alias["hostnames"]]) for alias in pod["spec"].get("hostAliases", [])]
    return {
        "/etc/hosts": ("\n".join(lines) + "\n").encode(),
        "/etc/hostname": f"{hostname(pod)}\n".encode(),
        "/etc/resolv.conf": RESOLVER.format(namespace=pod["metadata"]["namespace"]).encode(),
    }
