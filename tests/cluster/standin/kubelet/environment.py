"""A container's environment: pure, from the pod, its image, and what configuration objects there are.

The order is the kubelet's (kubelet_pods.go, makeEnvironmentVariables): the image's, services', `envFrom`, `env`, in
which $(NAME) is what is known of NAME by then and $$ is a dollar.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping

from mirrord_trace.cluster.resources import Resource

from ..kinds import CONFIG_MAPS, SECRETS
from ..store import Object

Find = Callable[[Resource, str], Object | None]
"""An object of the pod's namespace, by resource and name."""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_API_SERVER = {"KUBERNETES_SERVICE_HOST": "198.18.0.2", "KUBERNETES_SERVICE_PORT": "443"}
_SOURCES = {"configMapKeyRef": CONFIG_MAPS, "secretKeyRef": SECRETS}
_FROM_SOURCES = {"configMapRef": CONFIG_MAPS, "secretRef": SECRETS}
_SINGULAR = {CONFIG_MAPS: "configmap", SECRETS: "secret"}
_REFERENCE = re.compile(r"\$(?:\$|\(([^()$\s]+)\))")
_WITH_KEY = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")


class ConfigurationTrouble(Exception):
    """What keeps a container from being made: CreateContainerConfigError, with the kubelet's words."""


def environment(pod: Object, container: Object, image: Mapping[str, str], find: Find) -> dict[str, str]:
    """The container's variables. Raises ConfigurationTrouble."""
    made = {"PATH": PATH, "HOSTNAME": hostname(pod), **image, **_API_SERVER}
    for source in container.get("envFrom", []):
        for kind, resource in _FROM_SOURCES.items():
            if kind in source:
                data = content(find, resource, pod, source[kind]["name"], optional=source[kind].get("optional", False))
                made |= {source.get("prefix", "") + key: value.decode() for key, value in data.items()}
    for variable in container.get("env", []):
        if "valueFrom" in variable:
            value = _value_from(pod, variable["valueFrom"], find)
            if value is not None:
                made[variable["name"]] = value
        else:
            made[variable["name"]] = expand(variable.get("value", ""), made)
    return made


def hostname(pod: Object) -> str:
    """What uname(2) tells in the pod; at most 63 bytes (kubelet_pods.go, truncatePodHostnameIfNeeded)."""
    name: str = pod["spec"].get("hostname") or pod["metadata"]["name"]
    return name[:63].rstrip("-.")


def expand(text: str, variables: Mapping[str, str]) -> str:
    """With $(NAME) replaced where NAME is known, and left as it is where not."""

    def replace(match: re.Match[str]) -> str:
        return "$" if match[0] == "$$" else variables.get(match[1], match[0])

    return _REFERENCE.sub(replace, text)


def content(find: Find, resource: Resource, pod: Object, name: str, *, optional: bool) -> dict[str, bytes]:
    """The data of a ConfigMap or Secret. Raises ConfigurationTrouble where it must exist and does not."""
    found = find(resource, name)
    if found is None:
        if optional:
            return {}
        raise ConfigurationTrouble(f'{_SINGULAR[resource]} "{name}" not found')
    if resource is SECRETS:
        return {key: base64.b64decode(value) for key, value in found.get("data", {}).items()}
    plain = {key: value.encode() for key, value in found.get("data", {}).items()}
    return plain | {key: base64.b64decode(value) for key, value in found.get("binaryData", {}).items()}


def _value_from(pod: Object, source: Object, find: Find) -> str | None:
    if "fieldRef" in source:
        return field(pod, source["fieldRef"]["fieldPath"])
    for kind, resource in _SOURCES.items():
        if kind in source:
            name, key = source[kind]["name"], source[kind]["key"]
            optional = source[kind].get("optional", False)
            data = content(find, resource, pod, name, optional=optional)
            if key in data:
                return data[key].decode()
            if optional:
                return None
            singular = {CONFIG_MAPS: "ConfigMap", SECRETS: "Secret"}[resource]
            namespace = pod["metadata"]["namespace"]
            raise ConfigurationTrouble(f"couldn't find key {key} in {singular} {namespace}/{name}")
    raise ConfigurationTrouble(f"the stand-in does not serve valueFrom: {', '.join(source)}")


def field(pod: Object, path: str) -> str:
    """A field of the pod, as the downward API has it."""
    metadata, spec, status = pod["metadata"], pod["spec"], pod.get("status", {})
    if keyed := _WITH_KEY.fullmatch(path):
        found: str = metadata.get(keyed[1], {}).get(keyed[2], "")
        return found
    if path in ("metadata.labels", "metadata.annotations"):
        pairs = metadata.get(path.partition(".")[2], {})
        return "\n".join(f'{key}="{value}"' for key, value in sorted(pairs.items()))
    fields = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata["namespace"],
        "metadata.uid": metadata["uid"],
        "spec.nodeName": spec.get("nodeName", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName", "default"),
        "status.podIP": status.get("podIP", ""),
        "status.podIPs": ",".join(entry["ip"] for entry in status.get("podIPs", [])),
        "status.hostIP": status.get("hostIP", ""),
    }
    if path not in fields:
        raise ConfigurationTrouble(f"unsupported fieldPath: {path}")
    return str(fields[path])
