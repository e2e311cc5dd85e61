"""`mirrord-trace doctor` on this machine: what it says is what a run then does.

Circumstances are made by a seccomp filter that denies calls to the command and all that it starts.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from mirrord_syscalls.abi import native_abi
from mirrord_syscalls.bpf import RET_ERRNO, compile_filter
from mirrord_syscalls.subscription import Subscription
from mirrord_trace.doctor.findings import Ability, Finding, Verdict, can_run
from mirrord_trace.supervisor.launch import Filtering
from tests.rights import as_user

COMMAND = [sys.executable, "-m", "mirrord_trace"]
TIMEOUT_S = 120


def mirrord_trace(
    home: Path, *arguments: str, denied: Sequence[str] = (), before: Sequence[str] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    """The command, without a kubeconfig, where some system calls fail with EPERM."""
    program = compile_filter(Subscription.of(denied), native_abi(), RET_ERRNO | errno.EPERM) if denied else None
    filtering = None if program is None else Filtering.of(program)

    def deny() -> None:
        if filtering is not None:
            filtering.install()

    variables = {name: value for name, value in os.environ.items() if name != "KUBECONFIG"}
    return subprocess.run(
        [*before, *COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        stdin=subprocess.DEVNULL,
        preexec_fn=deny,
        cwd=home,
        env={**variables, "HOME": str(home), **environment},
    )


def verdicts(result: subprocess.CompletedProcess[str]) -> Mapping[str, Any]:
    return {check["name"]: check["verdict"] for check in json.loads(result.stdout)["checks"]}


INTERCEPTS = Finding("", "", Verdict.WORKS, "", gives=Ability.INTERCEPTION)
NO_INTERCEPTION = Finding("", "", Verdict.FAILS, "", gives=Ability.INTERCEPTION)
DEMO = Finding("", "", Verdict.WORKS, "", gives=Ability.DEMO)
CLUSTER = Finding("", "", Verdict.LIMITED, "", gives=Ability.CLUSTER)
NO_CLUSTER = Finding("", "", Verdict.FAILS, "", gives=Ability.CLUSTER)


@pytest.mark.parametrize(
    ("findings", "expected"),
    [
        ([INTERCEPTS, DEMO], True),
        ([INTERCEPTS, CLUSTER], True),
        ([INTERCEPTS, NO_CLUSTER], False),
        ([INTERCEPTS], False),
        ([NO_INTERCEPTION, DEMO, CLUSTER], False),
        ([], False),
    ],
)
def test_a_run_needs_interception_and_a_target(findings: list[Finding], expected: bool) -> None:
    assert can_run(findings) is expected


def test_here_a_run_works(tmp_path: Path) -> None:
    found = mirrord_trace(tmp_path, "doctor", "-o", "json")
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["can_run"] is True
    assert verdicts(found)["demo"] == "works"
    assert mirrord_trace(tmp_path, "run", "-t", "demo", "--", "true").returncode == 0


def test_plain_text_has_groups_and_no_colours(tmp_path: Path) -> None:
    text = mirrord_trace(tmp_path, "doctor", PYTHONIOENCODING="utf-8").stdout
    groups = [line for line in text.splitlines() if not line.startswith(" ")]
    assert groups == ["System calls", "Files", "Targets on this machine", "Cluster", "✓ a run can work here"]
    assert "\x1b" not in text
    assert "  ok demo: " in mirrord_trace(tmp_path, "doctor", PYTHONIOENCODING="ascii").stdout


def test_without_filters_nothing_works(tmp_path: Path) -> None:
    found = mirrord_trace(tmp_path, "doctor", "-o", "json", denied=["seccomp"])
    assert found.returncode == 1
    assert (verdicts(found)["seccomp filters"], verdicts(found)["delivery"]) == ("fails", "fails")
    tried = mirrord_trace(tmp_path, "run", "-t", "demo", "--", "true", denied=["seccomp"])
    assert tried.returncode == 1
    assert "cannot install the seccomp filter" in tried.stderr


def test_without_notification_ptrace_is_chosen(tmp_path: Path) -> None:
    found = mirrord_trace(tmp_path, "doctor", denied=["pidfd_getfd"])
    assert found.returncode == 0
    assert "delivery: auto takes ptrace" in found.stdout
    tried = mirrord_trace(tmp_path, "run", "-v", "-t", "demo", "--", "true", denied=["pidfd_getfd"])
    assert tried.returncode == 0, tried.stderr
    assert "delivery: ptrace, because" in tried.stderr


def test_without_either_delivery_nothing_works(tmp_path: Path) -> None:
    denied = ["pidfd_getfd", "ptrace"]
    found = mirrord_trace(tmp_path, "doctor", denied=denied)
    assert found.returncode == 1
    assert "delivery: neither notify nor ptrace works" in found.stdout
    tried = mirrord_trace(tmp_path, "run", "-t", "demo", "--", "true", denied=denied)
    assert tried.returncode == 1
    assert "cannot trace the command" in found.stdout
    assert "cannot trace the command" in tried.stderr


def test_user_without_namespaces_and_cluster_has_no_target(tmp_path: Path) -> None:
    user = as_user(reads_everything=True)
    found = mirrord_trace(tmp_path, "doctor", "-o", "json", denied=["unshare"], before=user)
    assert found.returncode == 1
    assert verdicts(found)["delivery"] == "works"
    assert (verdicts(found)["demo"], verdicts(found)["pid/PID"]) == ("limited", "limited")
    tried = mirrord_trace(tmp_path, "run", "-t", "demo", "--", "true", denied=["unshare"], before=user)
    assert tried.returncode == 1
    assert "cannot start the sandbox pod" in tried.stderr


def test_without_the_fuse_device_files_are_copied(tmp_path: Path) -> None:
    devices = tmp_path / "dev"
    script = (
        f"mkdir {devices} && mount -t tmpfs none {devices} && mkdir {devices}/shm && "
        f"for name in null zero full random urandom tty; do touch {devices}/$name && "
        f"mount --bind /dev/$name {devices}/$name || exit; done; "
        f'mount --rbind {devices} /dev && exec "$@"'
    )
    before = ["unshare", "--mount", "sh", "-c", script, "sh"]
    found = mirrord_trace(tmp_path, "doctor", before=before)
    assert found.returncode == 0, found.stderr
    assert "/dev/fuse is missing" in found.stdout
    assert "tree: auto takes copies" in found.stdout
    devices.rmdir()
    tried = mirrord_trace(tmp_path, "run", "-v", "-t", "demo", "--", "true", before=before)
    assert tried.returncode == 0, tried.stderr
    assert "the target's files: copies" in tried.stderr


def test_without_a_kubeconfig_only_the_cluster_is_missing(tmp_path: Path) -> None:
    found = mirrord_trace(tmp_path, "doctor", "-o", "json")
    assert (found.returncode, verdicts(found)["kubeconfig"]) == (0, "limited")
    assert mirrord_trace(tmp_path, "run", "-t", "pod/web", "--", "true").returncode == 1


def test_broken_kubeconfig_is_told(tmp_path: Path) -> None:
    broken = tmp_path / "config"
    broken.write_text("contexts: [")
    found = mirrord_trace(tmp_path, "doctor", "-o", "json", KUBECONFIG=str(broken))
    assert (found.returncode, verdicts(found)["kubeconfig"]) == (0, "fails")
    tried = mirrord_trace(tmp_path, "run", "-t", "pod/web", "--", "true", KUBECONFIG=str(broken))
    assert tried.returncode == 1
    [words] = [check["what"] for check in json.loads(found.stdout)["checks"] if check["name"] == "kubeconfig"]
    assert words.splitlines()[0] in tried.stderr
