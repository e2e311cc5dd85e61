"""Pods for tests: a `SandboxPod` in which programs can be run natively, with a second network behind it if wanted.

The map of a pod with a far side (N.x stands for 198.18.N.x and fd00:198:18:N::x):

    pod: lo                    as given
    pod: veth0   1.1  <----->  1.2   veth1: far side, forwarding
    pod: 2.x through 1.2       unreachable there: ICMP host unreachable, EHOSTUNREACH (IPv6: no route, ENETUNREACH)
    pod: 3.x through 1.2       dropped there: silence, ETIMEDOUT (after 3 s in these pods)
    pod: 4.x through 1.2       prohibited there: ICMP administratively prohibited, EHOSTUNREACH (IPv6: EACCES)
    pod: 5.x through 1.2       no route there: ICMP network unreachable, ENETUNREACH
    pod: 6.x                   unreachable route in the pod itself: EHOSTUNREACH
    pod: 7.x                   blackhole route in the pod itself: EINVAL
    pod: 8.x                   prohibit route in the pod itself: EACCES
    anything else              no route: ENETUNREACH
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mirrord_trace.targets.sandbox import SandboxPod

FAR_SIDE_PROGRAM = Path(__file__).with_name("far_side.py")
ONE_SYN_RETRY = {"/proc/sys/net/ipv4/tcp_syn_retries": "1"}


class ConformancePod(SandboxPod):
    """A `SandboxPod` with `run`; `far_side=True` adds the network of the module's map, with `far_programs` in it."""

    def __init__(
        self,
        *,
        hostname: str,
        addresses: Iterable[str] = (),
        neighbours: Iterable[str] = (),
        files: Mapping[str, bytes] | None = None,
        environment: Mapping[str, str] | None = None,
        programs: Iterable[Sequence[str]] = (),
        far_side: bool = False,
        far_programs: Iterable[Sequence[str]] = (),
    ) -> None:
        far = [[sys.executable, str(FAR_SIDE_PROGRAM), json.dumps(list(map(list, far_programs)))]] if far_side else []
        super().__init__(
            hostname=hostname,
            addresses=addresses,
            neighbours=neighbours,
            files=files,
            environment=environment,
            # The network first: other programs may bind to its addresses.
            programs=[*far, *programs],
            sysctls=ONE_SYN_RETRY,
        )

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        timeout_s: float = 60,
        stdin: bytes = b"",
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a program inside the pod, natively, as root there.

        Without `env` it gets the pod's environment over the PATH and HOME of this process. Raises TimeoutExpired when
        it takes too long, and then nothing of its process group is left.
        """
        if env is None:
            env = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | self.environment
        command = ["nsenter", "--target", str(self.pid), "--net", "--mount", "--uts", "--ipc", "--pid"]
        if os.readlink(f"/proc/{self.pid}/ns/user") != os.readlink("/proc/self/ns/user"):
            command += ["--user", "--preserve-credentials"]
        command += [f"--wdns={cwd or os.getcwd()}", "--", *argv]
        with subprocess.Popen(
            command,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        ) as process:
            try:
                stdout, stderr = process.communicate(stdin, timeout_s)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        return subprocess.CompletedProcess(list(argv), process.returncode, stdout, stderr)
