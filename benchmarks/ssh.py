"""`ssh -D` as a relay to compare with: a SOCKS server on loopback, an sshd inside the pod's network behind it.

Keys, host keys and configuration are made for the occasion in a private directory. The two ends talk over a socket pair
(sshd in inetd mode), as our supervisor and agent do, and not over TCP. sshd need not be installed as a service: one
that was merely unpacked (`.ci/system-packages bench`) serves. For root, sshd wants a user of its own name and an empty
directory; both exist in the pod only.
"""

from __future__ import annotations

import contextlib
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks import building, processes
from benchmarks.errors import Unavailable
from benchmarks.world import World

PORT: Final = 1080
UNPACKED: Final = building.OUTPUT / "openssh-server"
_START_TIMEOUT_S: Final = 15.0

POD_FILES: Final = {
    "/etc/passwd": b"root:x:0:0:root:/root:/bin/sh\nsshd:x:65533:65534::/run/sshd:/usr/sbin/nologin\n",
    "/etc/shadow": b"root:*:1:0:99999:7:::\nsshd:*:1:0:99999:7:::\n",
    "/etc/group": b"root:x:0:\nnogroup:x:65534:\n",
    "/run/sshd/README": b"sshd locks itself up here.\n",
}


def find_sshd() -> Path:
    """The sshd that is installed, or the one that was unpacked for us. Raises Unavailable."""
    for candidate in (Path("/usr/sbin/sshd"), UNPACKED / "usr/sbin/sshd"):
        if candidate.exists():
            return candidate
    raise Unavailable("no sshd: .ci/system-packages bench")


def version() -> str:
    """What `ssh -V` says. Raises Unavailable."""
    ssh = shutil.which("ssh")
    if ssh is None:
        raise Unavailable("no ssh: apt-get install openssh-client")
    return subprocess.run([ssh, "-V"], capture_output=True, text=True, check=True).stderr.strip()


def _prepare(directory: Path) -> Path:
    """Keys and sshd_config in a private directory; the path of the latter."""
    for name in ("user", "host"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / name], check=True)
    (directory / "authorized_keys").write_bytes((directory / "user.pub").read_bytes())
    configuration = directory / "sshd_config"
    lines = [
        f"HostKey {directory}/host",
        f"AuthorizedKeysFile {directory}/authorized_keys",
        "PidFile none",
        "StrictModes no",
        "UsePAM no",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "AllowTcpForwarding yes",
        "MaxSessions 10",
    ]
    helpers = UNPACKED / "usr/lib/openssh"
    if find_sshd().is_relative_to(UNPACKED):
        # From OpenSSH 9.8 (10.0) on sshd executes these.
        for option, helper in (("SshdSessionPath", "sshd-session"), ("SshdAuthPath", "sshd-auth")):
            if (helpers / helper).exists():
                lines.append(f"{option} {helpers / helper}")
    configuration.write_text("\n".join(lines) + "\n")
    return configuration


@contextmanager
def socks_server(world: World) -> Iterator[int]:
    """An `ssh -D` to the pod for as long as the block runs; its port on 127.0.0.1. Raises Unavailable."""
    version()
    with tempfile.TemporaryDirectory(prefix="mirrord-trace-bench-") as name:
        directory = Path(name)
        enter = ["nsenter", "--target", str(world.pod.pid), "--net", "--mount", "--pid"]
        server = [*enter, "--", find_sshd(), "-i", "-e", "-f", _prepare(directory)]
        client: processes.Command = [
            *("ssh", "-F", "none", "-N", "-D", f"127.0.0.1:{PORT}", "-i", directory / "user"),
            *("-o", f"ProxyCommand={shlex.join(map(str, server))}"),
            *("-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={directory}/known_hosts"),
            *("-o", "BatchMode=yes", "-o", "LogLevel=ERROR", "-o", "ExitOnForwardFailure=yes"),
            *("-o", "IdentityAgent=none", "root@bench-0"),
        ]
        with processes.running(client) as process:
            _wait_for_port(process)
            yield PORT


def _wait_for_port(process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            assert process.stderr is not None
            raise Unavailable(f"ssh -D ended: {process.stderr.read()[-800:]}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", PORT), 1):
            return
        time.sleep(0.02)
    raise Unavailable(f"ssh -D did not listen within {_START_TIMEOUT_S:g} s")
