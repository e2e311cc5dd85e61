from __future__ import annotations

import getpass
import os
import socket

import pytest

from mirrord_trace.targets.owner import owner_in_words


def test_user_machine_and_process_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "alice")
    assert owner_in_words() == f"alice on {socket.gethostname()} (process {os.getpid()})"


@pytest.mark.parametrize("error", [KeyError, OSError])
def test_a_user_without_a_name(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def no_name() -> str:
        raise error

    monkeypatch.setattr(getpass, "getuser", no_name)
    assert owner_in_words().startswith(f"uid {os.getuid()} on ")
