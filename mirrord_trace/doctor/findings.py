"""What is found out, and what follows from all of it together."""

from __future__ import annotations

import enum
from collections.abc import Collection

import attrs


class Verdict(enum.Enum):
    """How well something works."""

    WORKS = "works"
    LIMITED = "limited"
    """Something falls short, and a run can do without."""
    FAILS = "fails"
    KNOWN = "known"
    """A fact, which is neither good nor bad, or cannot be judged from here."""


class Ability(enum.Enum):
    """What a run needs: to intercept calls, and one of the kinds of targets."""

    INTERCEPTION = "interception"
    DEMO = "demo"
    PROCESS = "process"
    CLUSTER = "cluster"


@attrs.frozen
class Finding:
    """One thing that was looked at."""

    group: str
    name: str
    verdict: Verdict
    what: str
    """What was found, and what it means for a run."""
    advice: str | None = None
    """What to do about it."""
    gives: Ability | None = None
    """What one has if this does not fail."""


def abilities(findings: Collection[Finding]) -> frozenset[Ability]:
    """What there is, by the findings that give it."""
    return frozenset(
        finding.gives for finding in findings if finding.gives is not None and finding.verdict is not Verdict.FAILS
    )


def can_run(findings: Collection[Finding]) -> bool:
    """Whether `run` can work at all: calls can be intercepted, and some kind of target can be had."""
    found = abilities(findings)
    return Ability.INTERCEPTION in found and len(found) > 1
