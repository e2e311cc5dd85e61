"""A cluster to try things with: prints the path of a kubeconfig, and runs until its standard input ends.

    python -m tests.cluster.standin [--bare | --empty] [DIRECTORY]

It has two nodes, and the shop in namespace "shop", unless it is asked for less.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from .cluster import Cluster
from .node import Nodes
from .shop import open_up, registry


def main() -> None:
    """Runs the cluster."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.cluster.standin", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    less = parser.add_mutually_exclusive_group()
    less.add_argument("--bare", action="store_true", help="an API server alone, without nodes and controllers")
    less.add_argument("--empty", action="store_true", help="nodes and controllers, and nothing on them")
    parser.add_argument("directory", nargs="?", type=Path, help="for its files; otherwise a temporary one")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        directory = arguments.directory or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="standin-")))
        nodes = None if arguments.bare else Nodes(directory / "nodes", registry())
        cluster = stack.enter_context(Cluster(directory / "cluster", nodes))
        if nodes is not None and not arguments.empty:
            open_up(cluster, nodes)
        sys.stdout.write(f"{cluster.kubeconfig}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
