"""Clusters for the tests of this directory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.standin.cluster import Cluster


@pytest.fixture
def api_server(tmp_path: Path) -> Iterator[Cluster]:
    """An API server with nothing behind it: pods are what the test makes them."""
    with Cluster(tmp_path / "cluster") as cluster:
        yield cluster
