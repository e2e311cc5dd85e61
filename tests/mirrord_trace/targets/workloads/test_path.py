from __future__ import annotations

import pytest

from mirrord_trace.errors import UsageFailure
from mirrord_trace.targets.workloads import kinds
from mirrord_trace.targets.workloads.path import WorkloadPath, nearest, parse_path


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("pod/web-0", WorkloadPath(kinds.POD, "web-0")),
        ("po/web-0", WorkloadPath(kinds.POD, "web-0")),
        ("pods/web-0", WorkloadPath(kinds.POD, "web-0")),
        ("deploy/web", WorkloadPath(kinds.DEPLOYMENT, "web")),
        ("deployment/web", WorkloadPath(kinds.DEPLOYMENT, "web")),
        ("deployment.apps/web", WorkloadPath(kinds.DEPLOYMENT, "web")),
        ("Deployment/web", WorkloadPath(kinds.DEPLOYMENT, "web")),
        ("rollout.argoproj.io/web", WorkloadPath(kinds.ROLLOUT, "web")),
        ("sts/db", WorkloadPath(kinds.STATEFUL_SET, "db")),
        ("ds/logs", WorkloadPath(kinds.DAEMON_SET, "logs")),
        ("rs/web-5f", WorkloadPath(kinds.REPLICA_SET, "web-5f")),
        ("job/sum", WorkloadPath(kinds.JOB, "sum")),
        ("cj/nightly", WorkloadPath(kinds.CRON_JOB, "nightly")),
        ("svc/web", WorkloadPath(kinds.SERVICE, "web")),
        ("pod/a.b-c.d/container/app", WorkloadPath(kinds.POD, "a.b-c.d", "app")),
        ("label/app=web", WorkloadPath(None, "app=web")),
        ("label/app=web,tier!=db/container/app", WorkloadPath(None, "app=web,tier!=db", "app")),
        ("label/app.kubernetes.io/name=web", WorkloadPath(None, "app.kubernetes.io/name=web")),
        ("label/container/x=y", WorkloadPath(None, "container/x=y")),
        ("label/empty=", WorkloadPath(None, "empty=")),
    ],
)
def test_understood(text: str, path: WorkloadPath) -> None:
    assert parse_path(text) == path


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("pod", "pod/NAME"),
        ("pod/", "pod/NAME"),
        ("deploy//container/app", "lacks a name"),
        ("label", "label/app=web"),
        ("label/app", "no label selector"),
        ("label/app=web,", "no label selector"),
        ("label/app=web;x=y", "no label selector"),
        ("deploy/web/app", "deploy/web/container/CONTAINER"),
        ("deploy/Web", "lower-case"),
        ("deploy/../x", "no name"),
        ("deploy/web_1", "Kubernetes accepts"),
        ("deploy/web/container/", "no container's name"),
        ("deploy/web/container/a/b", "no container's name"),
    ],
)
def test_refused_with_what_is_meant(text: str, part: str) -> None:
    with pytest.raises(UsageFailure) as caught:
        parse_path(text)
    assert part in f"{caught.value.message}\n{caught.value.advice}"


@pytest.mark.parametrize("text", ["", "demo", "pid/1", "node/a", "configmap/x", "/web"])
def test_not_a_workload(text: str) -> None:
    assert parse_path(text) is None


@pytest.mark.parametrize(
    ("text", "known"),
    [("deplyo/web", "deploy"), ("Statefulsets.app/x", "statefulsets.apps"), ("lable/a=b", "label"), ("xyz/web", None)],
)
def test_nearest_known_kind(text: str, known: str | None) -> None:
    assert nearest(text) == known


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("svc/web", "service/web"),
        ("deploy/web/container/app", "deployment/web/container/app"),
        ("label/a=b", "label/a=b"),
    ],
)
def test_as_one_would_write_it(text: str, plain: str) -> None:
    assert str(parse_path(text)) == plain
