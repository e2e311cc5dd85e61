"""`mirrord-trace doctor`: whether a run can work here, and what is in its way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

import click

from mirrord_trace.cli.options import ClusterFlags, GroupedCommand, cluster_options, configured, option
from mirrord_trace.errors import UsageFailure

if TYPE_CHECKING:
    # Loaded when the command runs: --help and mistakes are answered without them.
    from mirrord_trace.cli.progress import LineReporter, Mark
    from mirrord_trace.doctor.findings import Finding


@click.command(cls=GroupedCommand, short_help="Check whether a run can work here.")
@option("-o", "--output", type=click.Choice(["json"]), help="An object for programs: whether a run can work, and why.")
@cluster_options
def doctor(*, output: str | None, **cluster: Unpack[ClusterFlags]) -> int:
    """Check what this machine and the cluster allow, and tell what is in a run's way and what to do about it.

    \b
    Here, and in the kubeconfig's current context:
        mirrord-trace doctor
    In another namespace, for a bug report:
        mirrord-trace doctor -n shop -o json

    The exit code is 0 if a run can work here at all: system calls can be intercepted, and there is a kind of target
    that can be had (the demo pod, a process, a cluster). Else it is 1, and 2 for a mistake in the options or the
    configuration file. Nothing is left behind, and the cluster is only asked (SelfSubjectAccessReview).
    """  # noqa: D301 (click wants the character, not the two that stand for it)
    from mirrord_trace.cli.progress import open_stderr, reporter_for
    from mirrord_trace.cli.telling import told

    reporter = reporter_for(open_stderr())
    return told(reporter, lambda: _examine(output, reporter, cluster))


def _examine(output: str | None, reporter: LineReporter, cluster: ClusterFlags) -> int:
    from mirrord_trace.config.document import Document
    from mirrord_trace.doctor import clusters, machine
    from mirrord_trace.doctor.findings import can_run

    document = configured(Document(), reporter, **cluster)
    try:
        agent = document.agent_configuration()
    except ValueError as error:
        raise UsageFailure(str(error)) from error
    findings = [
        *machine.interception(),
        *machine.files(),
        *machine.local_targets(),
        *clusters.cluster(document.cluster_configuration(), agent),
    ]
    _print_json(findings) if output == "json" else _print(findings)
    return 0 if can_run(findings) else 1


def _print_json(findings: list[Finding]) -> None:
    import json

    from mirrord_trace.cli.output import is_terminal, print_text
    from mirrord_trace.doctor.findings import can_run

    checks = [
        {
            "group": finding.group,
            "name": finding.name,
            "verdict": finding.verdict.value,
            "what": finding.what,
            "advice": finding.advice,
        }
        for finding in findings
    ]
    content = {"can_run": can_run(findings), "checks": checks}
    print_text(json.dumps(content, indent=2 if is_terminal() else None))


def _print(findings: list[Finding]) -> None:
    from itertools import groupby

    from mirrord_trace.cli.output import print_text
    from mirrord_trace.cli.progress import Mark, printable
    from mirrord_trace.doctor.findings import Verdict, can_run

    marks = {
        Verdict.WORKS: Mark.DONE,
        Verdict.LIMITED: Mark.WARNING,
        Verdict.FAILS: Mark.FAILED,
        Verdict.KNOWN: Mark.NOTE,
    }
    for group, members in groupby(findings, lambda finding: finding.group):
        print_text(group)
        for finding in members:
            print_text(f"  {_signed(marks[finding.verdict])} {finding.name}: {printable(finding.what)}")
            for line in (finding.advice or "").splitlines():
                print_text(f"      {printable(line)}")
    if can_run(findings):
        print_text(f"{_signed(Mark.DONE)} a run can work here")
    else:
        print_text(f"{_signed(Mark.FAILED)} a run cannot work here")


def _signed(mark: Mark) -> str:
    """The mark's sign, coloured on a terminal."""
    import sys

    from mirrord_trace.cli.output import is_terminal

    try:
        mark.sign.encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except UnicodeEncodeError:
        sign = mark.ascii_sign
    else:
        sign = mark.sign
    return click.style(sign, fg=mark.style) if is_terminal() else sign
