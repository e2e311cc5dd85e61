"""The deliveries under which drivers are started."""

from __future__ import annotations

import pytest


@pytest.fixture(params=["notify", "ptrace"])
def delivery(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every driver of the test runs under this delivery."""
    name: str = request.param
    monkeypatch.setenv("DELIVERY", name)
    return name
