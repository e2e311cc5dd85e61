"""Pods that tests of incoming traffic have."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.mirrord_agent.incoming.agents import Pod, pod_with_process
from tests.mirrord_agent.incoming.networks import Networks, pod_and_outside


@pytest.fixture
def networks() -> Iterator[Networks]:
    """A pod and what is outside."""
    with pod_and_outside() as made:
        yield made


@pytest.fixture
def pod() -> Iterator[Pod]:
    """A pod with a process to be a target."""
    with pod_with_process() as made:
        yield made
