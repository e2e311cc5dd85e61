from datetime import UTC, datetime, timedelta

import pytest

from mirrord_trace.cli.tables import age, print_table


def test_plain_columns_line_up(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["Target", "Needed to"], [["deployment/web", "x"], ["a\x1b[31m\n", "longer"]])
    assert capsys.readouterr().out == (
        "TARGET          NEEDED-TO\n"
        "deployment/web  x\n"
        "a\\x1b[31m\\n     longer\n"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-5, "0s"), (0, "0s"), (59.9, "59s"), (60, "1m"), (7199, "1h"), (86400 * 3 + 5, "3d")],
)
def test_age_has_one_unit(seconds: float, shown: str) -> None:
    now = datetime(2030, 1, 1, tzinfo=UTC)
    assert age(now - timedelta(seconds=seconds), now) == shown
