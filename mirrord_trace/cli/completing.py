"""What the shell may complete: targets and namespaces from the cluster, files where we expect them.

A person waits while this runs, and is at a prompt: it takes two seconds at most, and whatever fails completes nothing
and says nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    # Loaded when there is something to complete.
    from mirrord_trace.cluster.api import ApiServer

_AT_MOST_S: Final = 2.0
_CONTAINER: Final = "/container/"


def files(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of files, as the shell itself completes them."""
    return [CompletionItem(incomplete, type="file")]


def namespaces(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The cluster's namespaces, for those who may list them."""

    async def names(api: ApiServer) -> list[str]:
        from mirrord_trace.cluster.resources import Resource

        return [each["metadata"]["name"] for each in await api.list(Resource("", "v1", "namespaces"), None)]

    return _items(_from_cluster(context, names), incomplete)


def contexts(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The kubeconfig's contexts."""
    import os
    from pathlib import Path

    import yaml

    from mirrord_trace.cluster.kubeconfig import usual_files

    names: list[str] = []
    # As in `_from_cluster`: silent, whatever is the matter.
    with suppress(Exception):
        named = context.params.get("kubeconfig")
        for path in [Path(named).expanduser()] if named else usual_files(os.environ):
            if path.exists():
                names += [each["name"] for each in yaml.safe_load(path.read_text())["contexts"]]
    return _items(names, incomplete)


def targets(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Targets: first kinds, then names of a kind, then containers.

    When only one kind can be meant its names follow at once, because a shell ends a word that it has completed.
    """
    from mirrord_trace.targets.workloads.kinds import KINDS

    kind, slash, _ = incomplete.partition("/")
    if slash:
        return _items(_from_cluster(context, lambda api: _below(api, kind, incomplete)), incomplete)
    kinds = [f"{each.name}/" for each in KINDS]
    matching = [each for each in (*kinds, "label/", "pid/", "demo", "targetless") if each.startswith(incomplete)]
    if len(matching) == 1 and matching[0] in kinds:
        [prefix] = matching
        return _items(_from_cluster(context, lambda api: _below(api, prefix[:-1], prefix)), prefix)
    return _items(matching, incomplete)


async def _below(api: ApiServer, spelled_kind: str, incomplete: str) -> list[str]:
    """Targets that begin with a kind, as it was spelled."""
    from mirrord_trace.targets.workloads.choice import containers
    from mirrord_trace.targets.workloads.finding import find_pods
    from mirrord_trace.targets.workloads.kinds import kind_of
    from mirrord_trace.targets.workloads.ownership import MANAGED_BY
    from mirrord_trace.targets.workloads.path import parse_path

    workload, slash, _ = incomplete.partition("/")[2].partition("/")
    if slash:
        path = parse_path(f"{spelled_kind}/{workload}")
        if path is None:
            return []
        found = await find_pods(api, path, api.namespace)
        names = dict.fromkeys(name for pod in found.pods for name in containers(pod))
        return [f"{spelled_kind}/{workload}{_CONTAINER}{name}" for name in names]
    kind = kind_of(spelled_kind)
    if kind is None:
        return []
    selector = ",".join(f"{name}!={value}" for name, value in MANAGED_BY.items())
    objects = await api.list(kind.resource, api.namespace, label_selector=selector)
    return [f"{spelled_kind}/{each['metadata']['name']}" for each in objects]


def _from_cluster(context: click.Context, work: Callable[[ApiServer], Awaitable[list[str]]]) -> list[str]:
    """What is found in the cluster that the command line names so far; nothing if anything goes wrong."""
    import trio

    from mirrord_trace.cli.options import configured
    from mirrord_trace.cluster.api import open_api
    from mirrord_trace.config.document import Document

    async def main() -> list[str]:
        given = context.params
        document = configured(
            Document(),
            namespace=given.get("namespace"),
            context=given.get("context"),
            kubeconfig=given.get("kubeconfig"),
            accept_invalid_certificates=bool(given.get("accept_invalid_certificates")),
            config_file=given.get("config_file"),
        )
        found: list[str] = []
        with trio.move_on_after(_AT_MOST_S):
            async with open_api(document.cluster_configuration(), interactive=False) as api:
                found = await work(api)
        return found

    # A traceback at the prompt would help nobody, whatever is the matter.
    with suppress(Exception):
        return trio.run(main)
    return []


def _items(values: list[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(value) for value in sorted(set(values)) if value.startswith(incomplete)]
