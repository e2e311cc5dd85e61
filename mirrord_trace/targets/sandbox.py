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
from typing import IO, Any, Self

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

    `hostname`: what uname(2) tells inside. `addresses`: addresses on `lo`, with or without prefix length, IPv4 or IPv6.
    `neighbours`: IPv4 addresses that the pod serves as well but calls as if they were another's, from the first of its
    own. `files`: contents by absolute path; they exist in the pod only, beside everything that this machine has.
    `environment`: that of process 1 and of the programs. `programs`: argument lists of what runs in the pod, as root
    there; each says that it is ready by writing anything to its standard output. `sysctls`: values by path, such as
    /proc/sys/net/ipv4/tcp_syn_retries.

    The pod runs until the block is left, or until this process ends in whatever way.
    """

    def __init__(
        self,
        *,
        hostname: str,
        addresses: Iterable[str] = (),
        neighbours: Iterable[str] = (),
        files: Mapping[str, bytes] | None = None,
        environment: Mapping[str, str] | None = None,
        programs: Iterable[Sequence[str]] = (),
        sysctls: Mapping[str, str] | None = None,
    ) -> None:
        self.hostname = hostname
        self.environment = dict(environment or {})
        requests = netlink.loopback_with(
            [ipaddress.ip_interface(address) for address in addresses],
            [ipaddress.IPv4Address(neighbour) for neighbour in neighbours],
        )
        self._specification = {
            "hostname": hostname,
            "files": {path: content.decode("latin-1") for path, content in (files or {}).items()},
            "network": [request.decode("latin-1") for request in requests],
            "programs": [list(program) for program in programs],
            "sysctls": dict(sysctls or {}),
        }
        self._facts: dict[str, Any] = {}
        """What `pod_init` has reported."""
        self._unread = b""
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process 1 of the pod, by its number here: the process to target."""
        pid: int = self._facts["pid"]
        return pid

    def log(self) -> str:
        """What the pod's programs have written to standard output and standard error so far."""
        if self._log is None:
            return ""
        return os.pread(self._log.fileno(), os.fstat(self._log.fileno()).st_size, 0).decode(errors="replace")

    def start(self) -> None:
        """Make the pod and start its programs, without waiting for these. Raises `Failure`, leaving nothing behind."""
        self._log = tempfile.TemporaryFile(prefix="mirrord-trace-pod-")  # noqa: SIM115 (closed by stop)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(Path(__file__).with_name("pod_init.py"))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env=self.environment,
                start_new_session=True,
            )
        except OSError as error:
            self._log.close()
            self._log = None
            raise Failure(f"cannot start a pod: {sys.executable}: {error.strerror}") from error
        assert self._process.stdin is not None
        try:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write(json.dumps(self._specification).encode() + b"\n")
                self._process.stdin.flush()
            self._wait_for("pid", "made")
        except BaseException:
            self.stop()
            raise

    def wait_until_ready(self) -> None:
        """Wait until every program has said that it is ready. Raises `Failure`."""
        self._wait_for("ready")

    def _wait_for(self, *facts: str) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        output = self._process.stdout.fileno()
        poll = select.poll()
        poll.register(output, select.POLLIN)
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not all(fact in self._facts for fact in facts):
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0 or not poll.poll(remaining_s * 1000):
                raise Failure(f"the sandbox pod was not ready after {_START_TIMEOUT_S:g} s", self._tail_of_log())
            chunk = os.read(output, 65536)
            if not chunk:
                raise Failure("the sandbox pod ended while it was starting", self._tail_of_log())
            *lines, self._unread = (self._unread + chunk).split(b"\n")
            for line in lines:
                self._facts |= json.loads(line)
            if "error" in self._facts:
                advice = _NAMESPACE_ADVICE if self._facts.get("forbidden") else self._tail_of_log()
                raise Failure(f"cannot start the sandbox pod: {self._facts['error']}", advice)

    def _tail_of_log(self) -> str | None:
        lines = self.log().splitlines()[-10:]
        return "The pod's last lines: " + "\n".join(lines) if lines else None

    def stop(self) -> None:
        """End the pod with all that runs in it, and wait until it is gone."""
        process, self._process = self._process, None
        if process is not None:
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
        try:
            self.wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()
