import pytest

from benchmarks import target
from benchmarks.errors import MeasurementFailed

OUTPUT = """\
Running 1s test @ http://198.18.1.1:8080/
  2 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     3.48ms    1.47ms  23.66ms   83.66%
    Req/Sec     4.68k   633.44     5.59k    65.00%
  9321 requests in 1.00s, 1.07MB read
Requests/sec:   9308.74
Transfer/sec:      1.07MB
"""


def test_the_rate_is_what_wrk_says() -> None:
    assert target.requests_per_second(OUTPUT) == 9308.74


@pytest.mark.parametrize(
    "trouble",
    ["  Socket errors: connect 0, read 3, write 0, timeout 1\n", "  Non-2xx or 3xx responses: 7\n"],
)
def test_requests_that_fail_are_no_measurement(trouble: str) -> None:
    with pytest.raises(MeasurementFailed, match=trouble.strip()):
        target.requests_per_second(OUTPUT.replace("Requests/sec", f"{trouble}Requests/sec"))


def test_output_without_a_rate_is_no_measurement() -> None:
    with pytest.raises(MeasurementFailed, match="unable to connect"):
        target.requests_per_second("unable to connect to 198.18.1.1:8080 Connection refused\n")
