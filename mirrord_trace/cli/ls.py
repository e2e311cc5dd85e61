"""`mirrord-trace ls`: what can be targeted in a cluster."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Unpack

import click

from mirrord_trace.cli.options import ClusterFlags, GroupedCommand, cluster_options, configured, option

if TYPE_CHECKING:
    # Loaded when the command runs: --help and mistakes are answered without them.
    from mirrord_trace.cli.progress import LineReporter
    from mirrord_trace.targets.workloads.listing import Listed, Listing


@click.command(cls=GroupedCommand, short_help="List what can be targeted in a cluster.")
@option("-A", "--all-namespaces", is_flag=True, help="Of all namespaces.")
@option(
    "-o",
    "--output",
    type=click.Choice(["json"]),
    help="An array of targets as -t of `run` takes them; with -A, an object with one array for each namespace.",
)
@cluster_options
def ls(*, all_namespaces: bool, output: str | None, **cluster: Unpack[ClusterFlags]) -> int:
    """List what can be targeted in a cluster: workloads, services and pods that have a pod which is ready.

    \b
    What is there, in the context's namespace and in another one:
        mirrord-trace ls
        mirrord-trace ls -n shop
    For scripts and editors:
        mirrord-trace ls -n shop -o json

    What a deployment, a rollout or a cron job has made for itself is left out, because its owner is the better name;
    its pods are listed. Kinds that you may not list are told on stderr.
    """  # noqa: D301 (click wants the character, not the two that stand for it)
    from mirrord_trace.cli.progress import open_stderr, reporter_for
    from mirrord_trace.cli.telling import told

    reporter = reporter_for(open_stderr())
    return told(reporter, lambda: _list(all_namespaces, output, reporter, cluster))


def _list(all_namespaces: bool, output: str | None, reporter: LineReporter, cluster: ClusterFlags) -> int:
    from mirrord_trace.cli.asking import asked
    from mirrord_trace.cluster.api import ApiServer
    from mirrord_trace.config.document import Document
    from mirrord_trace.targets.workloads.listing import list_targets

    async def work(api: ApiServer) -> tuple[str, Listing]:
        return api.namespace, await list_targets(api, None if all_namespaces else api.namespace)

    configuration = configured(Document(), reporter, **cluster).cluster_configuration()
    namespace, listing = asked(configuration, "list what can be targeted", work)
    where = "in the cluster" if all_namespaces else f"in namespace {namespace}"
    if listing.refused:
        kinds = ", ".join(str(refusal.resource) for refusal in listing.refused)
        reporter.warning(f"not listed, because you may not list them {where}: {kinds}")
    found = [one for one in listing.all if one.ready]
    if output == "json":
        _print_json(found, all_namespaces)
    elif found:
        _print_rows(found, all_namespaces)
    else:
        reporter.note(f"nothing {where} has a pod that is ready")
    unready = [
        f"{one.target} in {one.namespace}" if all_namespaces else one.target
        for one in listing.all
        if not one.ready and one.pods
    ]
    if unready and output is None:
        reporter.note(f"without a ready pod: {', '.join(unready)}")
    return 0


def _print_json(found: list[Listed], all_namespaces: bool) -> None:
    from mirrord_trace.cli.output import is_terminal, print_text

    by_namespace: dict[str, list[str]] = {}
    for one in found:
        by_namespace.setdefault(one.namespace, []).extend(one.targets)
    flat = [target for targets in by_namespace.values() for target in targets]
    print_text(json.dumps(by_namespace if all_namespaces else flat, indent=2 if is_terminal() else None))


def _print_rows(found: list[Listed], all_namespaces: bool) -> None:
    from datetime import UTC, datetime

    from mirrord_trace.cli.tables import age, print_table

    now = datetime.now(UTC)
    rows = [
        [
            *([one.namespace] if all_namespaces else []),
            one.target,
            f"{one.ready}/{one.pods}",
            ",".join(one.containers),
            age(one.created, now),
        ]
        for one in found
    ]
    print_table([*(["Namespace"] if all_namespaces else []), "Target", "Ready", "Containers", "Age"], rows)
