"""A cluster to try things with: prints the path of a kubeconfig, and runs until its standard input ends.

python -m tests.cluster.standin [--bare] [DIRECTORY]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from .cluster import Cluster


def main() -> None:
    """Runs the cluster."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.standin", description=__doc__)
    parser.add_argument("--bare", action="store_true", help="an API server alone, without nodes and controllers")
    parser.add_argument("directory", nargs="?", type=Path, help="for its files; otherwise a temporary one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="standin-") as temporary:
        with Cluster(arguments.directory or Path(temporary)) as cluster:
            sys.stdout.write(f"{cluster.kubeconfig}\n")
            sys.stdout.flush()
            sys.stdin.read()


if __name__ == "__main__":
    main()
