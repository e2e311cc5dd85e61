"""A small pod on this machine: fresh network, host name, mounts and processes, no container runtime.

The work inside is done by `pod_init`, a script of its own; this is the creator's end. The pod lives as long as the
creator holds the writing end of a pipe, so it needs no orderly shutdown: whatever way the creator ends, the kernel
closes the pipe and takes the pod away. Root makes it directly, an ordinary user within a user namespace.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Self

from mirrord_trace.errors import Failure
from mirrord_trace.targets import netlink

_START_TIMEOUT_S = 10.0
_STOP_TIMEOUT_S = 5.0
_NAMESPACE_ADVICE = (
    "Making namespaces needs root, or a kernel that lets ordinary users make user namespaces: see the sysctls "
    "kernel.unprivileged_userns_clone, user.max_user_namespaces and kernel.apparmor_restrict_unprivileged_userns. "
    "Containers often deny both; there, target an existing process with `-t pid/PID`."
)


class SandboxPod:
    """A pod with one network interface, `lo`, and no route out; a context manager.

    `hostname`: what uname(2) tells inside. `addresses`: addresses on `lo`, with or without prefix length, IPv4 or
    IPv6. `files`: contents by absolute path; they exist in the pod only, beside everything that this machine has.
    `environment`: the environment of process 1 and of the programs. `programs`: argument lists of what runs in the
    pod, root there; each says that it is ready by writing anything to its standard output. `sysctls`: values by path,
    such as /proc/sys/net/ipv4/tcp_syn_retries.

    The pod runs until the block is left, or until this process ends in whatever way.
    """

    def __init__(
        self,
        *,
        hostname: str,
        addresses: Iterable[str] = (),
        files: Mapping[str, bytes] | None = None,
        environment: Mapping[str, str] | None = None,
        programs: Iterable[Sequence[str]] = (),
        sysctls: Mapping[str, str] | None = None,
    ) -> None:
        self.hostname = hostname
        self.environment = dict(environment or {})
        requests = netlink.loopback_with([ipaddress.ip_interface(address) for address in addresses])
        self._specification = {
            "hostname": hostname,
            "files": {path: content.decode("latin-1") for path, content in (files or {}).items()},
            "network": [request.decode("latin-1") for request in requests],
            "programs": [list(program) for program in programs],
            "sysctls": dict(sysctls or {}),
        }
        self._pid: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process 1 of the pod, by its number here: the process to target."""
        if self._pid is None:
            raise RuntimeError("the pod has not been started")
        return self._pid

    def log(self) -> str:
        """What the pod's programs have written to standard output and standard error so far."""
        if self._log is None:
            return ""
        return os.pread(self._log.fileno(), os.fstat(self._log.fileno()).st_size, 0).decode(errors="replace")

    def start(self) -> None:
        """Make the pod and wait until its programs are ready. Raises `Failure`, leaving nothing behind."""
        self._log = tempfile.TemporaryFile(prefix="mirrord-trace-pod-")  # noqa: SIM115 (closed by stop)
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(__file__).with_name("pod_init.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=self.environment,
            start_new_session=True,
        )
        try:
            self._wait_until_ready(self._process)
        except BaseException:
            self.stop()
            raise

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(self._specification).encode() + b"\n")
            process.stdin.flush()
        deadline = time.monotonic() + _START_TIMEOUT_S
        ready = False
        received = b""
        while not (ready and self._pid is not None):
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0 or not select.select([process.stdout], [], [], remaining_s)[0]:
                raise Failure(f"the sandbox pod was not ready after {_START_TIMEOUT_S:g} s", self._tail_of_log())
            chunk = os.read(process.stdout.fileno(), 65536)
            if not chunk:
                raise Failure("the sandbox pod ended while it was starting", self._tail_of_log())
            *lines, received = (received + chunk).split(b"\n")
            for message in map(json.loads, lines):
                if "error" in message:
                    advice = _NAMESPACE_ADVICE if message.get("forbidden") else self._tail_of_log()
                    raise Failure(f"cannot start the sandbox pod: {message['error']}", advice)
                ready = ready or "ready" in message
                self._pid = message.get("pid", self._pid)

    def _tail_of_log(self) -> str | None:
        lines = self.log().splitlines()[-10:]
        return "The pod's last lines: " + "\n".join(lines) if lines else None

    def stop(self) -> None:
        """End the pod with all that runs in it, and wait until it is gone."""
        process, self._process = self._process, None
        if process is not None:
            # Leaving the block closes both pipes, which ends the pod.
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            assert process.stdout is not None
            process.stdout.close()
        if self._log is not None:
            self._log.close()
            self._log = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()
