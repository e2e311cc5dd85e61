"""How often something is told."""

from __future__ import annotations

from mirrord_trace.forwarding.complaints import Complaints


def test_a_flood_is_counted_and_told_later() -> None:
    told: list[str] = []
    now = 100.0
    complaints = Complaints(told.append, lambda: now)
    for _ in range(1000):
        complaints.add("refused")
    assert told == ["refused"] * 5
    now += 10
    complaints.add("refused")
    complaints.add("refused")
    assert told[5:] == ["refused (995 more such lines were left out before)", "refused"]
