"""`mirrord-trace clean`: remove what interrupted runs have left in a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

import click

from mirrord_trace.cli.options import ClusterFlags, GroupedCommand, cluster_options, configured, option
from mirrord_trace.errors import UsageFailure

if TYPE_CHECKING:
    # Loaded when the command runs: --help and mistakes are answered without them.
    from mirrord_trace.cli.progress import LineReporter
    from mirrord_trace.cluster.refusals import ApiRefusal
    from mirrord_trace.targets.workloads.leftovers import AgentJob


@click.command(cls=GroupedCommand, short_help="Remove what interrupted runs have left in a cluster.")
@option("-A", "--all-namespaces", is_flag=True, help="Look in all namespaces.")
@option("--dry-run", is_flag=True, help="Remove nothing, only say what would be.")
@option(
    "--all",
    "everything",
    is_flag=True,
    help="Remove also the agents of runs that may still be going on, other people's included. Their connections to "
    "the target are lost.",
)
@cluster_options
def clean(*, all_namespaces: bool, dry_run: bool, everything: bool, **cluster: Unpack[ClusterFlags]) -> int:
    """Remove the agents that interrupted runs have left in a cluster.

    Looks for agents' jobs in the namespace of -n, of agent.namespace in the configuration file or of the context, and
    removes those of your own runs on this machine that are over. Others are listed: whether a run on another machine or
    of somebody else is over cannot be told from here.

    \b
    See what is there, in all namespaces, and remove nothing:
        mirrord-trace clean -A --dry-run
    Remove all agents of a namespace, whosesoever they are:
        mirrord-trace clean -n shop --all

    Without this command agents leave by themselves: 30 s after their client is gone, unless told otherwise
    (agent.communication_timeout), and the cluster removes their jobs.
    """  # noqa: D301 (click wants the character, not the two that stand for it)
    from mirrord_trace.cli.progress import open_stderr, reporter_for
    from mirrord_trace.cli.telling import told

    reporter = reporter_for(open_stderr())

    def start() -> int:
        if all_namespaces and cluster["namespace"] is not None:
            raise UsageFailure("--all-namespaces contradicts --target-namespace")
        return _clean(all_namespaces, dry_run, everything, reporter, cluster)

    return told(reporter, start)


def _clean(all_namespaces: bool, dry_run: bool, everything: bool, reporter: LineReporter, cluster: ClusterFlags) -> int:
    import attrs

    from mirrord_trace.cli.asking import asked
    from mirrord_trace.cluster.api import ApiRefusal, ApiServer
    from mirrord_trace.cluster.resources import JOBS
    from mirrord_trace.config.document import Document
    from mirrord_trace.targets.workloads.leftovers import agent_jobs

    document = configured(Document(), reporter, **cluster)
    namespace = cluster["namespace"] or document.agent.namespace or document.target.namespace
    configuration = attrs.evolve(document.cluster_configuration(), namespace=namespace)

    async def work(api: ApiServer) -> list[tuple[AgentJob, str, ApiRefusal | None]]:
        outcomes: list[tuple[AgentJob, str, ApiRefusal | None]] = []
        for job in await agent_jobs(api, None if all_namespaces else api.namespace):
            if not (job.is_left or everything):
                outcomes.append((job, f"kept: {job.state.value}", None))
            elif dry_run:
                outcomes.append((job, "would be removed", None))
            else:
                try:
                    await api.delete(JOBS, job.namespace, job.name)
                    outcomes.append((job, "removed", None))
                except ApiRefusal as refusal:
                    outcomes.append((job, "not removed", refusal))
        return outcomes

    outcomes = asked(configuration, "list agents' jobs", work)
    if not outcomes:
        reporter.note("no agents are left")
        return 0
    _print([(job, what) for job, what, _ in outcomes])
    return _tell_of_refusals([refusal for _, _, refusal in outcomes if refusal is not None], reporter)


def _print(outcomes: list[tuple[AgentJob, str]]) -> None:
    from datetime import UTC, datetime

    from mirrord_trace.cli.tables import age, print_table

    now = datetime.now(UTC)
    print_table(
        ["Namespace", "Job", "Owner", "Age", "Outcome"],
        [[job.namespace, job.name, job.owner or "unknown", age(job.created, now), what] for job, what in outcomes],
    )


def _tell_of_refusals(refusals: list[ApiRefusal], reporter: LineReporter) -> int:
    """The exit code."""
    from mirrord_trace.cluster.refusals import failure

    for refusal in refusals:
        reporter.failure(failure(refusal, f"delete the job {refusal.name} in namespace {refusal.namespace}"))
    return 1 if refusals else 0
