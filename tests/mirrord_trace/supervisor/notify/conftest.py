"""What the tests of lowerings and of loops share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mirrord_trace.supervisor.delivery.notify.loop import receiver_in_python
from tests.mirrord_trace.supervisor.notify.openings import Make, in_c
from tests.mirrord_trace.supervisor.notify.tasks import FakeTask, open_descriptors


@pytest.fixture
def task() -> Iterator[FakeTask]:
    """A task that is this process; no descriptor may be left open."""
    before = open_descriptors()
    yield FakeTask()
    assert open_descriptors() == before


@pytest.fixture(params=[in_c, receiver_in_python], ids=["C", "Python"])
def make_receiver(request: pytest.FixtureRequest) -> Make:
    """Either loop."""
    chosen: Make = request.param
    return chosen
