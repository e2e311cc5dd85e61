"""How to reach the API server and as whom, made of what the kubeconfig or the pod says.

Proxies and TLS are set up once, for requests and for WebSockets, and by ourselves: in the official client they differ
from version to version, and `as`, `as-groups`, `as-uid` and `as-user-extra`, which impersonate, it does not know.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import socket
import ssl
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, quote, unquote, urlsplit

import attrs

from mirrord_trace.cluster.kubeconfig import Context, of_no_use
from mirrord_trace.cluster.proxies import proxy_for
from mirrord_trace.errors import Failure

if TYPE_CHECKING:
    import urllib3

_SOCKET_OPTIONS = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)
"""A watch notices within half a minute that the network is gone."""
_PROXIES = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")


@attrs.frozen(kw_only=True, eq=False)
class Access:
    """How to reach the API server and as whom, until the credentials change."""

    server: str
    """The URL that paths are appended to, without a slash at its end."""
    tls: ssl.SSLContext | None
    """With the authority and the client's certificate; None for a server that speaks plain HTTP."""
    server_hostname: str | None
    """The name that the server's certificate must have, where it is not the URL's."""
    proxy: str | None
    """A URL, with user and password if need be."""
    pools: urllib3.PoolManager
    expires: float | None
    """When the credentials end, in seconds since 1970, where that is known."""
    configuration: Any
    """The official client's."""
    context: Context | None
    impersonation: tuple[tuple[str, str], ...]

    def headers(self) -> list[tuple[str, str]]:
        """What says who we are.

        May read files and ask an identity provider, so not for Trio's thread. Raises `Failure` when that fails.
        """
        try:
            settings = self.configuration.auth_settings().values()
        except Exception as error:
            # As when it is loaded: the client checks little.
            raise of_no_use(self.context, error) from error
        tokens = [(setting["key"], setting["value"].strip()) for setting in settings if setting["value"]]
        headers = [*tokens, *self.impersonation]
        if bad := next((name for name, value in headers if not (value.isascii() and value.isprintable())), None):
            raise of_no_use(self.context, f"what it has for the header {bad} cannot stand in one")
        return headers


def access_by(settings: Any, context: Context | None, expires: float | None) -> Access:
    """The access that the official client's settings give. Raises `Failure` for what is of no use."""
    if context is not None and not context.cluster.get("server"):
        raise of_no_use(context, "the cluster has no server")
    server = settings.host.rstrip("/")
    _parsed(server, "the cluster's server", ("http", "https"), context)
    tls = _tls(settings, context) if server.startswith("https:") else None
    server_hostname = context.cluster.get("tls-server-name") if context else None
    proxy = proxy_for(server, context.cluster.get("proxy-url") if context else None, os.environ)
    return Access(
        server=server,
        tls=tls,
        server_hostname=server_hostname,
        proxy=proxy,
        pools=_pools(tls, server_hostname, _parsed(proxy, "the proxy", _PROXIES, context) if proxy else None),
        expires=expires,
        configuration=settings,
        context=context,
        impersonation=tuple(impersonation(context)) if context else (),
    )


def _parsed(text: str, role: str, schemes: tuple[str, ...], context: Context | None) -> SplitResult:
    """A URL in its parts. Raises `Failure`, which does not show the user and the password that may be in it."""
    with contextlib.suppress(ValueError):
        url = urlsplit(text)
        if url.scheme in schemes and url.hostname and url.port != 0:
            return url
    shown = re.sub(r"^([^/]*//)?.*@", r"\1", text, flags=re.DOTALL)
    raise of_no_use(context, f"{role} {shown!r} is no URL of {', '.join(schemes)}")


def _tls(settings: Any, context: Context | None) -> ssl.SSLContext:
    try:
        tls = ssl.create_default_context(cafile=settings.ssl_ca_cert)
    except (OSError, ssl.SSLError) as error:
        raise of_no_use(context, f"the authority's certificate cannot be used: {error}") from error
    # Certificates that Python 3.13 finds fault with, such as authorities without key usage, are common in clusters.
    tls.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not settings.verify_ssl:
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
    if settings.cert_file:
        try:
            # A password is answered with nothing, or OpenSSL would ask for one at the terminal.
            tls.load_cert_chain(settings.cert_file, settings.key_file, password="")
        except (OSError, ssl.SSLError) as error:
            raise of_no_use(context, f"the client certificate or its key cannot be used: {error}") from error
    return tls


def _pools(tls: ssl.SSLContext | None, server_hostname: str | None, proxy: SplitResult | None) -> urllib3.PoolManager:
    import urllib3

    options: dict[str, Any] = {"maxsize": 8, "socket_options": _SOCKET_OPTIONS}
    if tls is not None:
        options |= {"ssl_context": tls, "cert_reqs": tls.verify_mode}
        if tls.verify_mode == ssl.CERT_NONE:
            # Whoever gave up the check of certificates knows it.
            warnings.simplefilter("ignore", urllib3.exceptions.InsecureRequestWarning)
    if server_hostname:
        options["server_hostname"] = server_hostname
    if proxy is None:
        return urllib3.PoolManager(**options)
    if proxy.scheme.startswith("socks"):
        if importlib.util.find_spec("socks") is None:
            raise Failure(
                f"the proxy {proxy.scheme}://{proxy.hostname} needs PySocks", "pip install PySocks python-socks[trio]"
            )
        from urllib3.contrib.socks import SOCKSProxyManager

        return SOCKSProxyManager(proxy.geturl(), **options)
    headers = None
    if proxy.username:
        login = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
        headers = urllib3.util.make_headers(proxy_basic_auth=login)
    return urllib3.ProxyManager(proxy.geturl(), proxy_headers=headers, **options)


def impersonation(context: Context) -> Iterator[tuple[str, str]]:
    """The headers by which a user of the kubeconfig acts as another. Raises `Failure` for what cannot be meant."""
    user = context.user
    for field, header in (("as", "Impersonate-User"), ("as-uid", "Impersonate-Uid")):
        if user.get(field):
            yield header, user[field]
    for group in user.get("as-groups", []):
        yield "Impersonate-Group", str(group)
    for name, values in user.get("as-user-extra", {}).items():
        if not isinstance(values, list):
            raise of_no_use(context, f"as-user-extra of the user {context.user_name} must hold lists")
        for value in values:
            yield f"Impersonate-Extra-{quote(str(name), safe='')}", str(value)
