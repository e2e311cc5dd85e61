"""Whose a session is, as others are told."""

from __future__ import annotations

import os
import pwd
import socket


def user_at_host() -> str:
    """Who runs us, and on which machine."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def owner_in_words() -> str:
    """For agents, which tell it others who want what this session has. They keep some 60 bytes of it."""
    return f"{user_at_host()} (process {os.getpid()})"
