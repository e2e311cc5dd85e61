from __future__ import annotations

import subprocess

import pytest

from mirrord_agent import namespaces
from mirrord_agent.target import Target, TargetUnusable
from mirrord_agent.wire.frames import GoodbyeKind


def test_a_target_that_ends_while_its_namespaces_are_entered() -> None:
    with subprocess.Popen(["sleep", "1000"]) as process:
        target = Target.open(process.pid)
        process.kill()
    try:
        for kind in namespaces._NEEDED:
            with pytest.raises(TargetUnusable, match="ended while the agent started") as unusable:
                namespaces._join(target, kind)
            assert unusable.value.goodbye.kind is GoodbyeKind.TARGET_GONE
    finally:
        target.close()
