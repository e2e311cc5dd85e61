"""The pace of packets."""

from __future__ import annotations

import pytest

from mirrord_agent.incoming.pace import FAST_PER_S, Pace


@pytest.mark.parametrize(("per_s", "fast"), [(0, False), (FAST_PER_S // 2, False), (2 * FAST_PER_S, True)])
def test_a_steady_pace(per_s: int, fast: bool) -> None:
    pace = Pace(10.0)
    for batch in range(1, 100):
        pace.count(per_s // 1000, 10.0 + batch / 1000)
    assert pace.is_fast is fast


def test_a_burst_is_no_pace_and_what_was_fast_calms_down() -> None:
    pace = Pace(0.0)
    found = []
    for packets, now_s in ((50, 0.001), (1000, 0.1), (0, 1.0)):
        pace.count(packets, now_s)
        found.append(pace.is_fast)
    assert found == [False, True, False]
