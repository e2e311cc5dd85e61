"""Which proxy leads to the API server.

As kubectl (Go's `golang.org/x/net/http/httpproxy`) decides it: the kubeconfig's `proxy-url` whatever the environment
says, else $HTTPS_PROXY or $HTTP_PROXY by the server's scheme and, as the official client adds, $ALL_PROXY. What
$NO_PROXY names and loopback addresses are exempt from these. Versions of the official client differ in this, so it is
not asked.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit


def proxy_for(server: str, proxy_url: str | None, environment: Mapping[str, str]) -> str | None:
    """The URL of the proxy to reach `server` by, or None. `proxy_url` is the kubeconfig's."""
    if proxy_url:
        return proxy_url
    url = urlsplit(server)
    host = url.hostname or ""
    names = (f"{url.scheme}_proxy", "all_proxy")
    proxy = next((value for name in names if (value := _variable(environment, name))), None)
    if not proxy or is_exempt(
        host, url.port or (443 if url.scheme == "https" else 80), _variable(environment, "no_proxy")
    ):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def is_exempt(host: str, port: int, no_proxy: str) -> bool:
    """Whether a host is reached without the environment's proxy.

    `no_proxy` lists, with commas, names (which cover those below them; with a leading dot only these), addresses,
    networks, each but the last with a port if wanted, or `*`.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    if host == "localhost" or (address is not None and address.is_loopback):
        return True
    return any(_covers(entry.strip().lower(), host.lower(), address, port) for entry in no_proxy.split(","))


def _covers(entry: str, host: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address | None, port: int) -> bool:
    if not entry:
        return False
    if entry == "*":
        return True
    if address is not None:
        try:
            return address in ipaddress.ip_network(entry.strip("[]"), strict=False)
        except ValueError:
            pass
    name, colon, entry_port = entry.rpartition(":")
    if colon and entry_port.isdigit():
        if int(entry_port) != port:
            return False
        entry = name
    if address is not None:
        return entry.strip("[]") == str(address)
    below = entry.removeprefix("*").removeprefix(".")
    return host.endswith(f".{below}") or (host == below and not entry.startswith((".", "*")))


def _variable(environment: Mapping[str, str], name: str) -> str:
    return environment.get(name.upper()) or environment.get(name) or ""
