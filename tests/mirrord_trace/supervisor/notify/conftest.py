"""What the tests of lowerings share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.mirrord_trace.supervisor.notify.tasks import FakeTask, open_descriptors


@pytest.fixture
def task() -> Iterator[FakeTask]:
    """A task that is this process; no descriptor may be left open."""
    before = open_descriptors()
    yield FakeTask()
    assert open_descriptors() == before
