"""`mirrord-trace verify-access`: whether one has the rights that a run needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

import click

from mirrord_trace.cli import completing
from mirrord_trace.cli.options import (
    ClusterFlags,
    GroupedCommand,
    agent_modes,
    agent_namespace,
    cluster_options,
    configured,
    is_ephemeral,
    on_this_machine,
    option,
)
from mirrord_trace.errors import Failure, UsageFailure

if TYPE_CHECKING:
    # Loaded when the command runs: --help and mistakes are answered without them.
    from mirrord_trace.cli.progress import LineReporter
    from mirrord_trace.cluster.rights import Purpose, Question
    from mirrord_trace.config.document import Document


@click.command("verify-access", cls=GroupedCommand, short_help="Check the rights that a run needs.")
@option(
    "-t",
    "--target",
    metavar="TARGET",
    shell_complete=completing.targets,
    help="Check what this target needs, as -t of `run` takes it, instead of all kinds.",
)
@cluster_options
@agent_modes
@agent_namespace
@option("--all-pods/--no-all-pods", default=None, help="Check also what --all-pods of `run` needs.")
def verify_access(
    *,
    target: str | None,
    agent_mode: str | None,
    ephemeral_container: bool,
    agent_namespace: str | None,
    all_pods: bool | None,
    **cluster: Unpack[ClusterFlags],
) -> int:
    """Check which rights you have in the cluster, of those that mirrord-trace needs, and tell which are missing.

    \b
    What a run with the agent as a job takes, and what else one may want to do:
        mirrord-trace verify-access -n shop
    Whether this very run will be allowed:
        mirrord-trace verify-access -n shop -t deployment/web --agent-mode ephemeral

    The exit code is 0 if you may run a command with the agent in the chosen mode (job if you choose none), else 1;
    for a target on this machine (demo, pid/PID) it is 0, because no rights are needed. The API server is asked
    (SelfSubjectAccessReview); nothing is tried. agent/rbac.yaml has roles that grant the rights.
    """  # noqa: D301 (click wants the character, not the two that stand for it)
    from mirrord_trace.cli.progress import open_stderr, reporter_for
    from mirrord_trace.cli.telling import told

    reporter = reporter_for(open_stderr())

    def verify() -> int:
        from mirrord_trace.config import document as documents

        incoming = documents.IncomingSection(all_pods=all_pods)
        flags = documents.Document(
            target=documents.TargetSection(path=target),
            agent=documents.AgentSection(
                ephemeral=is_ephemeral(agent_mode, ephemeral_container), namespace=agent_namespace
            ),
            feature=documents.FeatureSection(network=documents.NetworkSection(incoming=incoming)),
        )
        return _verify(configured(flags, reporter, **cluster), reporter)

    return told(reporter, verify)


def _verify(document: Document, reporter: LineReporter) -> int:
    from mirrord_trace.cli.asking import asked
    from mirrord_trace.cli.tables import print_table
    from mirrord_trace.cluster import rights
    from mirrord_trace.cluster.api import ApiServer
    from mirrord_trace.cluster.resources import ROLLOUTS

    try:
        agent = document.agent_configuration()
    except ValueError as error:
        raise UsageFailure(str(error)) from error
    target = document.target.path
    if target is not None and on_this_machine(target):
        reporter.note(f"the target {target} is on this machine: a run needs no rights in a cluster")
        return 0
    mode = rights.EPHEMERAL if agent.mode == "ephemeral" else rights.JOB
    finding = _finding(target)
    all_pods = bool(document.feature.network.incoming.all_pods)
    if mode is rights.EPHEMERAL and not finding.rights:
        raise UsageFailure("without a target there is no pod to which an ephemeral container could be added")

    async def work(api: ApiServer) -> list[tuple[Question, list[Purpose], bool]]:
        namespaces = {rights.Place.TARGET: api.namespace, rights.Place.AGENT: agent.namespace or api.namespace}
        questions = rights.questions((finding, *rights.PURPOSES[1:]), namespaces)
        answers = await rights.answers(api, questions)
        return [(question, purposes, answers[question]) for question, purposes in questions.items()]

    answers = asked(document.cluster_configuration(), "ask which rights you have", work)
    lacking = [
        question
        for question, purposes, allowed in answers
        if not allowed
        and (mode in purposes or finding in purposes or (all_pods and rights.ALL_PODS in purposes))
        # Who has no rollouts is rarely given the right to them.
        and (finding is not rights.TARGET or purposes != [finding] or question.right.resource != ROLLOUTS)
    ]
    print_table(
        ["Verb", "Resource", "Namespace", "Needed for", "Allowed"],
        [
            [
                question.right.verb,
                str(question.right.resource),
                question.namespace,
                ", ".join(purpose.name for purpose in purposes),
                "yes" if allowed else "no",
            ]
            for question, purposes, allowed in answers
        ],
        faults=[question in lacking for question, _, _ in answers],
    )
    doing = f"{mode.doing}, and to {rights.ALL_PODS.doing}" if all_pods else mode.doing
    if not lacking:
        reporter.note(f"you have what it takes to {doing}")
        return 0
    roles = f"{finding.role} and {mode.role}"
    if all_pods:
        roles = f"{finding.role}, {mode.role} and {rights.ALL_PODS.role}"
    number = "a right" if len(lacking) == 1 else f"{len(lacking)} rights"
    reporter.failure(
        Failure(
            f"you lack {number} that it takes to {doing}: {', '.join(map(str, lacking))}",
            f"agent/rbac.yaml has roles that grant them, {roles}: ask who runs the cluster.",
        )
    )
    return 1


def _finding(target: str | None) -> Purpose:
    """What finding the target takes; for all kinds if none is named. Raises UsageFailure."""
    import attrs

    from mirrord_trace.cluster import rights
    from mirrord_trace.targets.workloads.path import nearest, parse_path

    if target is None:
        return rights.TARGET
    if target == "targetless":
        return attrs.evolve(rights.TARGET, rights=())
    path = parse_path(target)
    if path is None:
        meant = nearest(target)
        raise UsageFailure(
            f"target {target!r} is none in a cluster", f"Did you mean {meant}/…?" if meant is not None else None
        )
    return attrs.evolve(rights.TARGET, rights=rights.to_find(None if path.kind is None else path.kind.resource))
