"""The target's environment, as its process was started with it."""

from __future__ import annotations

from mirrord_agent.target import Target


def read_environment(target: Target) -> bytes:
    """The target's variables as `NAME=value`, each ended by NUL (proc_pid_environ(5)). Raises OSError."""
    return target.read_guarded("environ")
