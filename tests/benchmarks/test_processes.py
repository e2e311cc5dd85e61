import os
import subprocess
import sys

import pytest

from benchmarks import processes
from benchmarks.errors import MeasurementFailed
from benchmarks.processes import MemoryUse
from benchmarks.ways import subscription
from tests.conformance.harness import wait_until_gone

ROLLUP = """\
55d0c0a00000-7ffd3b7f2000 ---p 00000000 00:00 0                          [rollup]
Rss:               32872 kB
Pss:               11404 kB
Pss_Dirty:          9000 kB
"""


def test_numbers_are_read_by_their_words() -> None:
    assert processes.numbers("openat 2 1234.5\nconnect 7\n") == {"openat 2": 1234.5, "connect": 7}


def test_what_is_no_number_is_a_failure() -> None:
    with pytest.raises(MeasurementFailed, match="'Segmentation fault'"):
        processes.numbers("openat 1 3\nSegmentation fault\n")


def test_memory_is_read_from_a_rollup_and_added_up() -> None:
    use = MemoryUse.of_rollup(ROLLUP)
    assert use == MemoryUse(32872 * 1024, 11404 * 1024)
    assert use + MemoryUse(1, 2) == MemoryUse(32872 * 1024 + 1, 11404 * 1024 + 2)


def test_the_memory_of_a_process_of_ours_is_the_supervisors() -> None:
    found = processes.memory_by_role(os.getpid(), frozenset())
    assert found["supervisor"].rss >= found["supervisor"].pss > 1 << 20


def test_a_command_that_fails_is_a_failure_with_its_last_words() -> None:
    program = [sys.executable, "-c", "import sys; sys.exit('no such thing')"]
    with pytest.raises(MeasurementFailed, match=r"exit status 1: .*\nno such thing"):
        processes.run(program, 30)


def test_a_command_that_takes_too_long_is_a_failure_and_is_gone_with_all_below_it() -> None:
    program = ["sh", "-c", "sleep 1000 & echo $!; echo $$; wait"]
    with pytest.raises(MeasurementFailed, match="still running after") as failure:
        processes.run(program, 0.5)
    started = [int(line) for line in str(failure.value).splitlines()[1:]]
    assert len(started) == 2
    assert not wait_until_gone(started, 5)


def test_a_long_command_is_shown_by_its_ends() -> None:
    assert processes.shown(["true", "a b"]) == "true 'a b'"
    shown = processes.shown(["mirrord-trace", *map(str, range(1000))])
    assert shown.startswith("mirrord-trace 0 1 2")
    assert shown.endswith("998 999")
    assert len(shown) < 170


def test_the_subscription_is_the_tools_own() -> None:
    calls = {rule.call for rule in subscription().rules}
    assert {"openat", "newfstatat", "connect"} <= calls
    assert "getppid" not in calls


def test_a_server_is_there_when_it_says_so_and_gone_afterwards() -> None:
    with processes.serving(["sh", "-c", "echo ready; echo more; exec sleep 1000"], 30) as server:
        assert processes.read_line(server, 30) == "more"
    assert server.returncode is not None


@pytest.mark.parametrize(
    ("script", "why"), [("echo no >&2; exit 1", "ended: .*\nno"), ("echo what; exec sleep 1000", "says 'what'")]
)
def test_a_server_that_does_not_come_is_a_failure(script: str, why: str) -> None:
    with pytest.raises(MeasurementFailed, match=why), processes.serving(["sh", "-c", script], 30):
        pass


def test_a_server_that_says_nothing_is_a_failure() -> None:
    with pytest.raises(MeasurementFailed, match="said nothing"), processes.serving(["sleep", "1000"], 0.1):
        pass


def test_processor_time_only_grows_and_those_that_have_ended_have_none() -> None:
    before = processes.processor_time_s(os.getpid())
    with processes.running(["true"]) as ended:
        ended.communicate()
    times = processes.processor_times_s([os.getpid(), ended.pid])
    assert times.keys() == {os.getpid()}
    assert 0 < before <= times[os.getpid()]


def test_a_process_is_kept_on_processors_with_what_it_starts() -> None:
    available = os.sched_getaffinity(0)
    asking = "import os, subprocess; input(); subprocess.run(['nproc'])"
    with processes.running([sys.executable, "-c", asking], stdin=subprocess.PIPE) as process:
        processes.keep_on(process.pid, {min(available)})
        assert process.communicate("\n")[0] == "1\n"
    processes.keep_on(process.pid, available)


def test_an_agent_is_known_by_its_command_line() -> None:
    waiting = "print('ready', flush=True); input()"
    with processes.running([sys.executable, "-c", waiting, "-m", "mirrord_agent"], stdin=subprocess.PIPE) as agent:
        assert processes.read_line(agent, 30) == "ready"
        assert processes.is_agent(agent.pid)
    assert not processes.is_agent(agent.pid)
    with processes.running([sys.executable, "-c", waiting], stdin=subprocess.PIPE) as another:
        assert processes.read_line(another, 30) == "ready"
        assert not processes.is_agent(another.pid)
