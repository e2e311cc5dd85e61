"""CPython's own tests of sockets and subprocesses: with an empty network as target they go as they go without the tool.

They are some thousand real uses of what the tool intercepts, by people who did not know of it. The comparison is per
test: its name, and whether it passed, failed or was skipped and why.
"""

from __future__ import annotations

import importlib.util
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from pathlib import Path

import attrs
import pytest

from tests.conformance import build
from tests.conformance.harness import NATIVE, run_outside, tool_command
from tests.conformance.pods import ConformancePod

LONGEST_S = 240
AGAIN = 2
"""How often tests that went differently are run again."""
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


def command(module: str, report: Path, *options: str) -> list[str]:
    report.unlink(missing_ok=True)
    return [sys.executable, "-B", "-m", "test", "--verbose", *IGNORED, *options, "--junit-xml", str(report), module]


@attrs.frozen
class Comparison:
    """Runs tests of one module in the pod, then under the tool.

    Not at the same time: what the tests leave running for a while in the pod would count as left behind by the tool.
    """

    pod: ConformancePod
    outside: ConformancePod
    delivery: str
    module: str

    def _report(self, world: str) -> Path:
        reports = build.OUTPUT / "cpython"
        reports.mkdir(parents=True, exist_ok=True)
        return reports / f"{self.module}-{world}.xml"

    def in_pod(self, *options: str) -> dict[str, str]:
        """What becomes of the tests natively."""
        report = self._report(NATIVE)
        self.pod.run(command(self.module, report, *options), timeout_s=LONGEST_S)
        return results(report)

    def under_the_tool(self, *options: str) -> dict[str, str]:
        """What becomes of them traced."""
        report = self._report(self.delivery)
        program = command(self.module, report, *options)
        traced = run_outside(tool_command(self.outside, self.pod, self.delivery, program), timeout_s=LONGEST_S)
        assert report.exists(), f"{traced.stdout[-3000:]}\n{traced.stderr[-3000:]}"
        return results(report)


@pytest.fixture(scope="session")
def in_pod() -> dict[str, dict[str, str]]:
    """Results of modules in the pod, so that each runs there only once."""
    return {}


def differences(expected: Mapping[str, str], got: Mapping[str, str]) -> dict[str, str]:
    return {
        name: f"{name}: {expected.get(name)!r} in the pod, {got.get(name)!r} under the tool"
        for name in sorted(expected.keys() | got.keys())
        if expected.get(name) != got.get(name)
    }


@pytest.mark.parametrize(("module", "at_least"), [("test_socket", 500), ("test_subprocess", 250)])
def test_cpythons_own_tests_go_the_same(
    empty_pod: ConformancePod,
    outside: ConformancePod,
    delivery: str,
    module: str,
    at_least: int,
    in_pod: dict[str, dict[str, str]],
) -> None:
    assert importlib.util.find_spec(f"test.{module}") is not None, (
        f"{sys.executable} comes without its tests: apt-get install libpython3.11-testsuite"
    )
    comparison = Comparison(empty_pod, outside, delivery, module)
    if module not in in_pod:
        in_pod[module] = comparison.in_pod()
    expected, got = in_pod[module], comparison.under_the_tool()
    assert sum(text == "completed" for text in got.values()) >= at_least
    # Some of these tests have races of their own (testSourceAddress closes its socket while another thread asks for its
    # name) which a busy machine decides now so, now so. What really differs does so again.
    different = differences(expected, got)
    for _ in range(AGAIN):
        if different:
            names = [word for name in different for word in ("--match", name)]
            different = differences(comparison.in_pod(*names), comparison.under_the_tool(*names))
    assert not different, "\n".join(different.values())
