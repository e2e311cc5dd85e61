"""The pods of the suite, one of each for the whole session, and the worlds in which each case runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance import places
from tests.conformance.file_worlds import ChangingWorld, FileWorld, files_pod
from tests.conformance.harness import DELIVERIES, NATIVE, Outcome, World, become_subreaper
from tests.conformance.pods import ConformancePod
from tests.conformance.serving import Case, ServingWorld

SERVICES = Path(__file__).with_name("services.py")


@pytest.fixture(scope="session")
def pod() -> Iterator[ConformancePod]:
    """The pod with every service, near and far."""
    become_subreaper()
    command = [sys.executable, "-I", "-B", str(SERVICES)]
    with ConformancePod(
        hostname=places.HOSTNAME,
        addresses=[*places.NEAR, *places.NAME_SERVERS],
        files={path: content.encode() for path, content in places.FILES.items()},
        environment=places.ENVIRONMENT,
        programs=[[*command, "near"]],
        far_side=True,
        far_programs=[[*command, "far"]],
    ) as pod:
        yield pod


@pytest.fixture(scope="session")
def empty_pod() -> Iterator[ConformancePod]:
    """A pod with nothing in it: only `lo`, no names."""
    become_subreaper()
    with ConformancePod(hostname="empty-0", environment={"POD_NAME": "empty-0"}) as pod:
        yield pod


@pytest.fixture(scope="session")
def outside() -> Iterator[ConformancePod]:
    """Only its network and host name are used: this machine, as far as the traced programs know it."""
    with ConformancePod(hostname="outside-0") as pod:
        yield pod


@pytest.fixture(scope="session")
def native_outcomes() -> dict[tuple[object, ...], Outcome]:
    """What programs did inside the pod, so that each runs there only once."""
    return {}


@pytest.fixture(params=[NATIVE, *DELIVERIES])
def world(
    request: pytest.FixtureRequest,
    pod: ConformancePod,
    outside: ConformancePod,
    native_outcomes: dict[tuple[object, ...], Outcome],
) -> World:
    """Inside the pod, then outside under the tool with each delivery."""
    return World(request.param, pod, outside, native_outcomes)


@pytest.fixture(params=DELIVERIES)
def delivery(request: pytest.FixtureRequest) -> str:
    """For cases that have no native half."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def pod_with_files() -> Iterator[ConformancePod]:
    """The pod with a tree of files in /srv/data that this machine does not have."""
    become_subreaper()
    with files_pod() as pod:
        yield pod


@pytest.fixture(scope="session")
def native_remains() -> dict[tuple[str, ...], str]:
    """What programs left in their directories inside the pod."""
    return {}


@pytest.fixture(params=[NATIVE, *(f"{delivery}-fuse" for delivery in DELIVERIES), "notify-copy"])
def reading(
    request: pytest.FixtureRequest,
    pod_with_files: ConformancePod,
    outside: ConformancePod,
    native_outcomes: dict[tuple[object, ...], Outcome],
) -> FileWorld:
    """Inside the pod with the files, then outside with each delivery, and with each tree."""
    delivery, _, tree = request.param.partition("-")
    return FileWorld(delivery, pod_with_files, outside, native_outcomes, tree)


@pytest.fixture(params=[NATIVE, *(f"{delivery}-fuse" for delivery in DELIVERIES)])
def changing(
    request: pytest.FixtureRequest,
    pod_with_files: ConformancePod,
    outside: ConformancePod,
    native_outcomes: dict[tuple[object, ...], Outcome],
    native_remains: dict[tuple[str, ...], str],
) -> ChangingWorld:
    """The same for what only the tree that can be written to does."""
    delivery, _, tree = request.param.partition("-")
    return ChangingWorld(delivery, pod_with_files, outside, native_outcomes, tree, native_remains)


@pytest.fixture(scope="session")
def serving_pod() -> Iterator[ConformancePod]:
    """The pod whose ports are served: nothing listens in it before a case begins."""
    become_subreaper()
    with ConformancePod(hostname="serving-0", far_side=True) as pod:
        yield pod


@pytest.fixture(scope="session")
def native_servings() -> dict[Case, tuple[Outcome, str]]:
    """What servers and their clients said in the pod."""
    return {}


@pytest.fixture
def serving(
    delivery: str,
    serving_pod: ConformancePod,
    outside: ConformancePod,
    native_servings: dict[Case, tuple[Outcome, str]],
) -> ServingWorld:
    """For each delivery, with the pod as target."""
    return ServingWorld(delivery, serving_pod, outside, native_servings)
