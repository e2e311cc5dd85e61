import pytest

from mirrord_trace.cluster.proxies import is_exempt, proxy_for

PROXY = "http://proxy.example:3128"


@pytest.mark.parametrize(
    ("environment", "server", "proxy"),
    [
        ({}, "https://api.example", None),
        ({"HTTPS_PROXY": PROXY}, "https://api.example", PROXY),
        ({"https_proxy": PROXY}, "https://api.example", PROXY),
        ({"HTTP_PROXY": PROXY}, "https://api.example", None),
        ({"HTTP_PROXY": PROXY}, "http://api.example", PROXY),
        ({"ALL_PROXY": "socks5h://proxy.example:1080"}, "https://api.example", "socks5h://proxy.example:1080"),
        ({"HTTPS_PROXY": "proxy.example:3128"}, "https://api.example", PROXY),
        ({"HTTPS_PROXY": PROXY}, "https://127.0.0.1:6443", None),
        ({"HTTPS_PROXY": PROXY}, "https://[::1]:6443", None),
        ({"HTTPS_PROXY": PROXY}, "https://localhost:6443", None),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "example"}, "https://api.example", None),
    ],
)
def test_proxy_of_the_environment(environment: dict[str, str], server: str, proxy: str | None) -> None:
    assert proxy_for(server, None, environment) == proxy


def test_the_kubeconfigs_proxy_wins_over_the_environment() -> None:
    environment = {"HTTPS_PROXY": "http://other.example", "NO_PROXY": "*"}
    assert proxy_for("https://127.0.0.1", PROXY, environment) == PROXY


@pytest.mark.parametrize(
    ("no_proxy", "host", "exempt"),
    [
        ("", "api.example", False),
        ("*", "api.example", True),
        ("api.example", "api.example", True),
        ("api.example", "API.example", True),
        ("example", "api.example", True),
        (".example", "api.example", True),
        ("*.example", "api.example", True),
        (".api.example", "api.example", False),
        ("i.example", "api.example", False),
        ("other, api.example", "api.example", True),
        ("api.example:6443", "api.example", True),
        ("api.example:443", "api.example", False),
        ("198.18.0.0/15", "198.19.1.2", True),
        ("198.18.0.0/15", "198.20.1.2", False),
        ("198.18.0.0/15", "api.example", False),
        ("198.18.0.1", "198.18.0.1", True),
        ("198.18.0.1:6443", "198.18.0.1", True),
        ("198.18.0.1:443", "198.18.0.1", False),
        ("fd00::/8", "fd00::1", True),
        ("[fd00::1]:6443", "fd00::1", True),
        ("[fd00::1]:443", "fd00::1", False),
        ("fd00::1", "fd00::1", True),
    ],
)
def test_no_proxy(no_proxy: str, host: str, exempt: bool) -> None:
    assert is_exempt(host, 6443, no_proxy) is exempt
