import pytest

from benchmarks.figures import Figure
from benchmarks.goals import Verdict, judge
from benchmarks.ways import NOTIFY
from tests.benchmarks import samples


def verdict(about: str, figures: list[Figure]) -> Verdict:
    found = [verdict for verdict in judge(figures) if about in verdict.goal]
    assert len(found) == 1
    return found[0]


def test_all_goals_are_judged() -> None:
    assert [verdict.met for verdict in judge(samples.all_figures())] == [True] * 19


def test_the_floor_is_the_measure_of_openat() -> None:
    judged = verdict("C floor", samples.call_figures())
    assert judged.met
    assert judged.measured == "1.50 times (4.5 µs, floor 3 µs)"


def test_a_fifth_of_strace() -> None:
    judged = verdict("strace", samples.call_figures())
    assert judged.met
    assert judged.measured == "1/6.7 of it (30 µs)"


def test_a_call_that_is_not_intercepted() -> None:
    judged = verdict("not intercepted", samples.call_figures())
    assert judged.met
    assert judged.measured == "+10.0 ns"


@pytest.mark.parametrize(
    ("notify_rate", "native_rate", "met"),
    [(1.1e9, 4e9, True), (0.9e9, 4e9, False), (0.9e9, 3e9, True), (0.7e9, 3e9, False), (1.1e9, 8e9, True)],
)
def test_a_slower_machine_owes_the_same_share_of_native(notify_rate: float, native_rate: float, met: bool) -> None:
    judged = verdict("single TCP stream", samples.network_figures(notify_rate, native_rate))
    assert judged.met is met
    assert "messages of 1 MiB" in judged.measured


@pytest.mark.parametrize(("memory", "met"), [(149e6, True), (151e6, False)])
def test_memory_with_a_thousand_connections(memory: float, met: bool) -> None:
    judged = verdict("concurrent connections", samples.growth_figures(memory))
    assert judged.met is met
    assert judged.measured == f"{memory / 1e6:.0f} MB resident"


@pytest.mark.parametrize(("seconds", "met"), [(1.49, True), (1.51, False)])
def test_the_start_in_a_cluster_is_judged_without_the_pods_own(seconds: float, met: bool) -> None:
    judged = verdict("deploy/web", samples.cluster_figures(start_s=seconds))
    assert judged.met is met
    assert judged.measured == f"{seconds} s"


@pytest.mark.parametrize(("rate", "met"), [(251e6, True), (249e6, False)])
def test_the_worse_direction_counts(rate: float, met: bool) -> None:
    judged = verdict("API server moves", samples.cluster_figures(rate=rate))
    assert judged.met is met
    assert judged.measured.startswith(f"up {rate / 1e6:.0f} MB/s, down ")


@pytest.mark.parametrize(("requests", "web_sockets", "met"), [(15, 1, True), (16, 1, False), (7, 2, False)])
def test_what_a_session_may_cost_the_api_server(requests: int, web_sockets: int, met: bool) -> None:
    judged = verdict("WebSocket", samples.cluster_figures(requests=requests, web_sockets=web_sockets))
    assert judged.met is met
    assert judged.measured == f"{requests} and {web_sockets}"


@pytest.mark.parametrize(("memory", "met"), [(44.9e6, True), (45.1e6, False)])
def test_memory_of_an_idle_agent(memory: float, met: bool) -> None:
    judged = verdict("idle agent", samples.cluster_figures(memory_bytes=memory))
    assert judged.met is met
    assert judged.measured == f"{memory / 1e6} MB resident"


@pytest.mark.parametrize(("factor", "met"), [(1.4, True), (1.6, False)])
def test_warm_reads_and_stats_are_as_native(factor: float, met: bool) -> None:
    judged = verdict("Warm reads", samples.file_figures(warm_factor=factor))
    assert judged.met is met
    assert judged.measured == f"pread {factor:.2f} times, fstat {factor:.2f} times; a stat by path, which is " + (
        "intercepted, 25 µs"
    )


@pytest.mark.parametrize(("cold_ns", "trip", "met"), [(4.9e5, False, True), (5.1e5, False, False), (1.4e6, True, True)])
def test_a_cold_file_may_take_a_round_trip_more(cold_ns: float, trip: bool, met: bool) -> None:
    figures = samples.file_figures(cold_ns=cold_ns) + (samples.network_figures() if trip else [])
    assert verdict("cold small file", figures).met is met


def test_a_cold_file_that_lies_alone_may_take_no_longer() -> None:
    found = verdict("cold small file", samples.file_figures(cold_ns=2e5, lone_ns=9e5))
    assert found.met is False
    assert "200 µs as one of many in a directory, 900 µs alone" in found.measured


@pytest.mark.parametrize(("rate", "met"), [(5.1e8, True), (4.9e8, False)])
def test_a_large_file(rate: float, met: bool) -> None:
    assert verdict("sequential read", samples.file_figures(rate=rate)).met is met


@pytest.mark.parametrize(("seconds", "met"), [(0.29, True), (0.31, False)])
def test_many_entries(seconds: float, met: bool) -> None:
    assert verdict("10,000 entries", samples.file_figures(listing_s=seconds)).met is met


@pytest.mark.parametrize(("request_ns", "met"), [(3.1e5, True), (3.3e5, False)])
def test_stealing_is_compared_with_the_relay(request_ns: float, met: bool) -> None:
    judged = verdict("Stealing", samples.steal_figures(request_ns=request_ns, relayed_ns=3.2e5))
    assert judged.met is met
    assert judged.measured == f"{request_ns / 1e3:.0f} µs more, the relay 320 µs"


@pytest.mark.parametrize(("worst", "met"), [(5001.0, True), (4999.0, False)])
def test_the_worse_number_of_connections_counts(worst: float, met: bool) -> None:
    judged = verdict("stolen static Go server", samples.steal_figures(rates={32: 9e3, 64: worst}))
    assert judged.met is met
    assert judged.measured == f"9000 on 32 connections, {worst:.0f} on 64 connections"


@pytest.mark.parametrize(("kept", "met"), [(0.985, True), (0.975, False)])
def test_what_mirroring_costs_the_target(kept: float, met: bool) -> None:
    assert verdict("Mirroring costs the target", samples.mirror_figures(kept=kept)).met is met
    judged = verdict("while the agent is stopped", samples.mirror_figures(kept_while_stopped=kept))
    assert judged.met is met
    assert judged.measured.startswith(f"{kept - 1:+.1%} (")


@pytest.mark.parametrize(("copied", "met"), [(1.0, True), (0.999, False)])
def test_a_copy_that_is_cut_once_is_cut(copied: float, met: bool) -> None:
    assert verdict("keeps up", samples.mirror_figures(copied=copied)).met is met


def test_what_was_not_measured_is_neither_met_nor_missed_and_says_why() -> None:
    figures = samples.without(samples.all_figures(), NOTIFY, "the kernel has no listeners\nand more")
    for judged in judge(figures):
        assert judged.met is None
        assert judged.word == "not measured"
    assert verdict("C floor", figures).measured == "notify: the kernel has no listeners"


def test_sections_that_were_not_run() -> None:
    judged = judge([])
    assert {verdict.word for verdict in judged} == {"not measured"}
    assert {verdict.measured for verdict in judged} == {"its section was not run"}
