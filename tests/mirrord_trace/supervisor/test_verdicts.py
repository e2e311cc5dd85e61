"""Every verdict of each delivery on a real process, whose registers must come back as they were."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mirrord_trace.supervisor.harness import UNPRIVILEGED, program, run

pytestmark = pytest.mark.usefixtures("delivery")


@pytest.fixture
def echo_port() -> Iterator[int]:
    """A UDP echo service."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as service:
        service.bind(("127.0.0.1", 0))
        port: int = service.getsockname()[1]

        def serve() -> None:
            while True:
                data, peer = service.recvfrom(100)
                if data == b"end":
                    return
                service.sendto(data, peer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield port
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
            end.sendto(b"end", ("127.0.0.1", port))
        thread.join()


@pytest.mark.parametrize("rights", [[], UNPRIVILEGED], ids=["root", "user"])
def test_every_verdict(echo_port: int, tmp_path: Path, rights: list[str]) -> None:
    stand_in = tmp_path / "stand-in"
    stand_in.write_text("the stand-in")
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(0o755)
    environment = {"PORT": str(echo_port), "STAND_IN": str(stand_in)}
    ended = run("verdicts", program("verdicts"), prefix=rights, environment=environment)
    assert ended.stdout.splitlines() == [
        "return: 4242",
        f"fail: -{errno.EDOM}",
        "held: 4343",
        f"return with bad address: -{errno.EFAULT}",
        f"held with bad address: -{errno.EFAULT}",
        "writes: 0",
        "written: presented",
        "path: 3",
        "content: the stand-in",
        "path left: /nowhere/presented",
        "path again: 3",
        f"path that is none: -{errno.EFAULT}",
        "sendto: 3",
        "sendmsg: 3",
        "sendmmsg: 2",
        "lengths: 3 3",
        f"sendmsg with bad header: -{errno.EFAULT}",
        "recvfrom: 3",
        "from: 198.18.0.1:80, 16 bytes",
        "recvmsg: 3",
        "from: 198.18.0.1:80, 16 bytes",
        "recvmsg, nothing: 3",
        "connect: 0",
        "getpeername: 0",
        "getpeername: 0",
        "peer: 198.18.0.1:80, 16 bytes",
        f"getpeername with bad length: -{errno.EFAULT}",
        "address left: same",
    ]
    assert ended.exit_code == 0
