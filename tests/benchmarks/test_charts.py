from xml.etree import ElementTree

import pytest

from benchmarks.charts import plots
from benchmarks.charts.chart import Chart, Panel, Series
from benchmarks.figures import Summary
from benchmarks.ways import NOTIFY
from tests.benchmarks import samples

SVG = "{http://www.w3.org/2000/svg}"


def drawn(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in drawn(svg).iter(f"{SVG}text")]


def one_panel(*, as_lines: bool, values: list[Summary | None]) -> str:
    series = [Series("a <b>", "#123456", values), Series("c", "#654321", [Summary.of([5e3, 6e3])] * len(values))]
    panel = Panel("Title & more", "ns", "time", "threads", ["1", "2"], series, as_lines)
    return Chart("A chart", "of something", [panel], 1, {"a <b>": "#123456", "c": "#654321"}, {"c": "hm"}).svg()


@pytest.mark.parametrize("as_lines", [False, True])
def test_a_chart_is_xml_with_titles_units_and_a_legend(as_lines: bool) -> None:
    found = texts(one_panel(as_lines=as_lines, values=[Summary.of([100, 200]), Summary.of([10e6])]))
    assert {"A chart", "Title & more", "a <b>", "c (hm)", "threads", "time, logarithmic", "10 µs", "10 ms"} <= set(
        found
    )


def test_bars_and_their_whiskers_stay_within_the_panel() -> None:
    root = drawn(one_panel(as_lines=False, values=[Summary.of([100, 200, 400]), Summary.of([10e6])]))
    bars = [bar for bar in root.iter(f"{SVG}rect") if bar.find(f"{SVG}title") is not None]
    assert len(bars) == 4
    for bar in bars:
        assert float(bar.get("y", "")) >= 0
        assert float(bar.get("height", "")) > 0


def test_what_was_not_measured_is_said_where_its_bar_would_be() -> None:
    assert texts(one_panel(as_lines=False, values=[None, Summary.of([1])])).count("not measured") == 1


def test_a_line_leaves_out_what_was_not_measured() -> None:
    root = drawn(one_panel(as_lines=True, values=[None, Summary.of([1])]))
    assert len(list(root.iter(f"{SVG}circle"))) == 3


def test_a_panel_of_nothing_says_so() -> None:
    panel = Panel("Empty", "ns", "time", "threads", ["1"], [Series("a", "#123456", [None])])
    assert "nothing was measured" in texts(Chart("A chart", "", [panel], 1, {}).svg())


def test_every_section_has_its_plots() -> None:
    charts = plots.draw(samples.all_figures())
    assert set(charts) == {
        *("calls.svg", "startup.svg", "throughput.svg", "latency.svg", "datagrams.svg", "growth.svg", "memory.svg")
    }
    for svg in charts.values():
        assert "nothing was measured" not in texts(svg)


def test_only_what_was_measured_is_drawn() -> None:
    assert set(plots.draw(samples.call_figures())) == {"calls.svg"}
    assert plots.draw([]) == {}


def test_a_way_that_is_missing_stays_in_the_legend() -> None:
    svg = plots.draw(samples.without(samples.call_figures(), NOTIFY, "no listeners"))["calls.svg"]
    assert "notify (not measured)" in texts(svg)
