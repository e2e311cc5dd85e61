"""Pod Security: what a namespace's labels allow its pods (k8s.io/pod-security-admission).

Pods are refused by the level that is enforced. Objects that make pods are let in, with a warning: the one that makes
them is refused later. The warning's level is that of the label `warn`, else the enforced one (since Kubernetes 1.26).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from ..store import Object

ENFORCE, WARN = "pod-security.kubernetes.io/enforce", "pod-security.kubernetes.io/warn"
_BASELINE_CAPABILITIES = {
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
}
_RESTRICTED_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def violation(labels: dict[str, str], spec: Object, *, enforce: bool) -> str | None:
    """What a pod of this specification violates in a namespace with these labels; None if nothing.

    As the server tells it, after "violates" or "would violate".
    """
    mode = ENFORCE if enforce or WARN not in labels else WARN
    level, version = labels.get(mode, "privileged"), labels.get(f"{mode}-version", "latest")
    if not enforce:
        version = labels.get(f"{WARN}-version", version)
    found = {"privileged": (), "baseline": tuple(_baseline(spec)), "restricted": tuple(_restricted(spec))}[level]
    return f'PodSecurity "{level}:{version}": {", ".join(found)}' if found else None


def _baseline(spec: Object, *, restricted: bool = False) -> Iterator[str]:
    containers = _containers(spec)
    if not restricted:
        yield from _named("non-default capabilities", _added(containers, _BASELINE_CAPABILITIES))
    shared = [f"{name}=true" for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]
    yield from _named("host namespaces", shared, joint=", ")
    if not restricted:
        paths = [volume["name"] for volume in spec.get("volumes", []) if "hostPath" in volume]
        yield from _named("hostPath volumes", [f"{_plural('volume', paths)} {_quoted(paths)}"] if paths else [])
    privileged = [name for name, context in containers if context.get("privileged")]
    if privileged:
        who = f"{_plural('container', privileged)} {_quoted(privileged)}"
        yield f"privileged ({who} must not set securityContext.privileged=true)"


def _restricted(spec: Object) -> Iterator[str]:
    containers = _containers(spec)
    pod = spec.get("securityContext", {})
    yield from _baseline(spec, restricted=True)
    escalating = [name for name, context in containers if context.get("allowPrivilegeEscalation") is not False]
    if escalating:
        who = f"{_plural('container', escalating)} {_quoted(escalating)}"
        yield f"allowPrivilegeEscalation != false ({who} must set securityContext.allowPrivilegeEscalation=false)"
    keeping = [name for name, context in containers if "ALL" not in _capabilities(context, "drop")]
    who = f"{_plural('container', keeping)} {_quoted(keeping)}"
    told = [f'{who} must set securityContext.capabilities.drop=["ALL"]'] if keeping else []
    told += _added(containers, {"NET_BIND_SERVICE"})
    yield from _named("unrestricted capabilities", told)
    yield from _named(
        "restricted volume types",
        [
            f'volume "{volume["name"]}" uses restricted volume type "{kind}"'
            for volume in spec.get("volumes", [])
            for kind in sorted(set(volume) - {"name"} - _RESTRICTED_VOLUMES)
        ],
    )
    rooted = [name for name, context in containers if not context.get("runAsNonRoot", pod.get("runAsNonRoot"))]
    if rooted:
        who = f"pod or {_plural('container', rooted)} {_quoted(rooted)}"
        yield f"runAsNonRoot != true ({who} must set securityContext.runAsNonRoot=true)"
    zero = [name for name, context in containers if context.get("runAsUser") == 0]
    setters = ["pod"] if pod.get("runAsUser") == 0 else []
    setters += [f"{_plural('container', zero)} {_quoted(zero)}"] if zero else []
    yield from _named("runAsUser=0", [f"{' and '.join(setters)} must not set runAsUser=0"] if setters else [])
    profiled = ("RuntimeDefault", "Localhost")
    open_ = [name for name, context in containers if _seccomp(context, pod) not in profiled]
    if open_:
        who = f"pod or {_plural('container', open_)} {_quoted(open_)}"
        yield f'seccompProfile ({who} must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")'


def _containers(spec: Object) -> list[tuple[str, Object]]:
    groups = ("initContainers", "containers", "ephemeralContainers")
    return [(one["name"], one.get("securityContext", {})) for group in groups for one in spec.get(group, [])]


def _added(containers: Sequence[tuple[str, Object]], allowed: Collection[str]) -> list[str]:
    """Who adds capabilities that are not allowed, and which."""
    added = {name: {*_capabilities(context, "add")}.difference(allowed) for name, context in containers}
    adding = [name for name, capabilities in added.items() if capabilities]
    if not adding:
        return []
    all_added = sorted(set().union(*added.values()))
    who = f"{_plural('container', adding)} {_quoted(adding)}"
    return [f"{who} must not include {_quoted(all_added)} in securityContext.capabilities.add"]


def _capabilities(context: Object, what: str) -> Sequence[str]:
    named: list[str] = context.get("capabilities", {}).get(what, [])
    return named


def _seccomp(context: Object, pod: Object) -> Any:
    profile: Object = context.get("seccompProfile") or pod.get("seccompProfile") or {}
    return profile.get("type")


def _named(reason: str, details: Sequence[str], joint: str = "; ") -> Iterator[str]:
    if details:
        yield f"{reason} ({joint.join(details)})"


def _plural(noun: str, things: Sequence[str]) -> str:
    return noun if len(things) == 1 else f"{noun}s"


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)
