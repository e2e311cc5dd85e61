from __future__ import annotations

import os
import pwd
import socket

import pytest

from mirrord_trace.targets.owner import owner_in_words, user_at_host


def test_user_machine_and_process_are_named() -> None:
    user = pwd.getpwuid(os.getuid()).pw_name
    assert owner_in_words() == f"{user}@{socket.gethostname()} (process {os.getpid()})"


def test_a_user_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    assert user_at_host() == f"54321@{socket.gethostname()}"
