"""Clusters for the tests of this directory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.standin.cluster import Cluster
from tests.cluster.standin.node import Nodes
from tests.cluster.standin.shop import Shop, open_up, registry


@pytest.fixture
def api_server(tmp_path: Path) -> Iterator[Cluster]:
    """An API server with nothing behind it: pods are what the test makes them."""
    with Cluster(tmp_path / "cluster") as cluster:
        yield cluster


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    """The machinery of `cluster`: two nodes, which have the shop's images and the agent's."""
    return Nodes(tmp_path / "nodes", registry())


@pytest.fixture
def cluster(tmp_path: Path, nodes: Nodes) -> Iterator[Cluster]:
    """A cluster in which pods run, and nothing in it yet."""
    with Cluster(tmp_path / "cluster", nodes) as cluster:
        yield cluster


@pytest.fixture
def fresh_shop(cluster: Cluster, nodes: Nodes) -> Shop:
    """The shop, for a test that changes it."""
    return open_up(cluster, nodes)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """The shop, one for all tests of a module: they leave it as it was."""
    directory = tmp_path_factory.mktemp("shop")
    nodes = Nodes(directory / "nodes", registry())
    with Cluster(directory / "cluster", nodes) as cluster:
        yield open_up(cluster, nodes)
