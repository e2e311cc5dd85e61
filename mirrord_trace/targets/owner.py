"""Whose session it is: what an agent tells others who want what this session has."""

from __future__ import annotations

import getpass
import os
import socket


def owner_in_words() -> str:
    """The user, the machine and our process. It is short: agents keep some 60 bytes."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a uid without a name
        user = f"uid {os.getuid()}"
    return f"{user} on {socket.gethostname()} (process {os.getpid()})"
