"""What -L is given."""

from __future__ import annotations

import pytest

from mirrord_trace.forwarding.forwards import Forward

LOOPBACK = ("127.0.0.1", "::1")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("shop:80", Forward(LOOPBACK, 80, "shop", 80)),
        ("8080:shop:80", Forward(LOOPBACK, 8080, "shop", 80)),
        ("0:shop:80", Forward(LOOPBACK, 0, "shop", 80)),
        ("8080:[fd00::1]:80", Forward(LOOPBACK, 8080, "fd00::1", 80)),
        ("localhost:8080:10.0.0.1:80", Forward(LOOPBACK, 8080, "10.0.0.1", 80)),
        ("*:8080:shop:80", Forward(("0.0.0.0", "::"), 8080, "shop", 80)),
        (":8080:shop:80", Forward(("0.0.0.0", "::"), 8080, "shop", 80)),
        ("[::1]:8080:[::1]:80", Forward(("::1",), 8080, "::1", 80)),
        ("192.0.2.1:8080:shop:80", Forward(("192.0.2.1",), 8080, "shop", 80)),
    ],
)
def test_forwards_are_read_as_ssh_reads_them(text: str, expected: Forward) -> None:
    assert Forward.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "80",
        ":80",
        "shop:",
        "shop:0",
        "shop:65536",
        "shop:http",
        "x:shop:80",
        "-1:shop:80",
        "fd00::1:80",
        "[fd00::1:80",
        "[::1]x:80",
        "a:b:8080:shop:80",
        "there:8080:shop:80",
        "8080:[fe80::1%eth0]:80",
        "8080:a b:80",
    ],
)
def test_what_is_no_forward_is_refused_in_words(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w+ "):
        Forward.parse(text)
