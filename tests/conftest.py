"""What holds for all tests."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """A shell starts what is to run in the background with SIGINT ignored, and the programs of tests inherited that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
