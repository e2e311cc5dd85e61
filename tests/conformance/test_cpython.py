"""CPython's own tests of sockets and subprocesses: with an empty network as target they go as they go without the tool.

They are some thousand real uses of what the tool intercepts, by people who did not know of it. The comparison is per
test: its name, and whether it passed, failed or was skipped and why.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from tests.conformance import build
from tests.conformance.harness import run_outside, tool_command
from tests.conformance.pods import ConformancePod

LONGEST_S = 240
# AF_VSOCK is answered by the hypervisor, not by the network: on some virtual machines these tests never end.
IGNORED = ("--ignore", "*VSOCK*")


def results(report: Path) -> dict[str, str]:
    """What became of each test, from a report in JUnit's format."""
    found = {}
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        troubles = [f"{each.tag}: {each.text or each.get('message')}" for each in case if each.tag != "system-out"]
        # Failures differ in addresses and times; that it failed is what counts.
        text = "; ".join(trouble if trouble.startswith("skipped") else trouble.split(":")[0] for trouble in troubles)
        found[case.get("name", "?")] = text or case.get("result", "?")
    return found


def command(module: str, report: Path) -> list[str]:
    report.unlink(missing_ok=True)
    return [sys.executable, "-B", "-m", "test", "--verbose", *IGNORED, "--junit-xml", str(report), module]


@pytest.mark.parametrize(("module", "at_least"), [("test_socket", 500), ("test_subprocess", 250)])
def test_cpythons_own_tests_go_the_same(
    empty_pod: ConformancePod, outside: ConformancePod, delivery: str, module: str, at_least: int
) -> None:
    assert importlib.util.find_spec(f"test.{module}") is not None, (
        f"{sys.executable} comes without its tests: apt-get install libpython3.11-testsuite"
    )
    reports = build.OUTPUT / "cpython"
    reports.mkdir(parents=True, exist_ok=True)
    native_report, traced_report = reports / f"{module}-native.xml", reports / f"{module}-{delivery}.xml"
    # Both spend most of their time asleep, so they run at once.
    native = threading.Thread(
        target=empty_pod.run, args=[command(module, native_report)], kwargs={"timeout_s": LONGEST_S}
    )
    native.start()
    try:
        traced_command = command(module, traced_report)
        traced = run_outside(tool_command(outside, empty_pod, delivery, traced_command), timeout_s=LONGEST_S)
    finally:
        native.join()
    assert traced_report.exists(), f"{traced.stdout[-3000:]}\n{traced.stderr[-3000:]}"
    expected, got = results(native_report), results(traced_report)
    different = [
        f"{name}: {expected.get(name)!r} in the pod, {got.get(name)!r} under the tool"
        for name in sorted(expected.keys() | got.keys())
        if expected.get(name) != got.get(name)
    ]
    assert not different, "\n".join(different)
    assert sum(text == "completed" for text in got.values()) >= at_least
