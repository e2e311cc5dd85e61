from click.testing import CliRunner

from benchmarks.__main__ import main
from benchmarks.sections import SECTIONS


def test_sections_are_listed() -> None:
    result = CliRunner().invoke(main, ["--list"])
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.output.splitlines()] == list(SECTIONS)


def test_an_unknown_section_is_refused_before_anything_is_measured() -> None:
    result = CliRunner().invoke(main, ["calls", "memroy"])
    assert result.exit_code == 2
    assert "'memroy' is not one of" in result.output
