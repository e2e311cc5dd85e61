"""Why the API server could not be spoken to, in words.

urllib3 and the ssl module wrap causes in each other; what the user needs is the innermost one, and which field of the
kubeconfig or which flag it has to do with.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from http.client import IncompleteRead
from urllib.parse import urlsplit

from mirrord_trace.errors import Failure

_TRUST = (
    "certificate-authority(-data) in the kubeconfig must be of the authority that signed it; "
    "--accept-invalid-certificates does without the check."
)
_CERTIFICATE_PROBLEMS = {
    9: ("is not valid yet", "Check the clock here and on the server."),
    10: ("has expired", "Have it renewed; --accept-invalid-certificates does without the check."),
    18: ("is signed by itself only, and not trusted", _TRUST),
    19: ("is signed by an authority that is not trusted", _TRUST),
    20: ("is signed by an authority that is not trusted", _TRUST),
    21: ("is signed by an authority that is not trusted", _TRUST),
    62: ("is for another name", "Set tls-server-name in the kubeconfig's cluster to a name that the certificate has."),
    64: (
        "is for another address",
        "Set tls-server-name in the kubeconfig's cluster to a name that the certificate has.",
    ),
}
"""By the verify codes of OpenSSL (x509_vfy.h)."""


class Unreachable(Failure):
    """The API server cannot be reached, or not any more.

    `sent` says whether an attempt at the request may have arrived there, and have done what was asked, although no
    answer came.
    """

    def __init__(self, message: str, advice: str | None, *, sent: bool) -> None:
        super().__init__(message, advice)
        self.sent = sent


def may_have_arrived(error: BaseException) -> bool:
    """Whether a request that failed so may have arrived, and have been carried out.

    Not when there was no connection, or no TLS on it. Where an error may come of either, it may have.
    """
    from urllib3.exceptions import ConnectTimeoutError, ProxyError

    # urllib3 takes connections that were refused, and names that have no address, for timeouts.
    unconnected = (ConnectTimeoutError, ProxyError, ConnectionRefusedError, socket.gaierror)
    return not any(isinstance(cause, unconnected) or _is_of_handshake(cause) for cause in _causes(error))


def _is_of_handshake(error: BaseException) -> bool:
    """Whether TLS failed as it does while it begins: not by the connection's end, nor by records that are broken."""
    if not isinstance(error, ssl.SSLError) or isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return False
    return isinstance(error, ssl.SSLCertVerificationError) or "RECORD" not in (error.reason or "RECORD")


def may_pass(error: BaseException, *, reached: bool) -> bool:
    """Whether a request that failed so may well succeed when it is sent again.

    `reached` says that the server has answered before.
    """
    from urllib3.exceptions import ConnectTimeoutError, ProtocolError

    causes = list(_causes(error))
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        return False
    if any(isinstance(cause, ConnectTimeoutError) for cause in causes):  # also connections that were refused
        return reached
    if any(_is_timeout(cause) for cause in causes):
        return False
    return any(isinstance(cause, ConnectionError | EOFError | ssl.SSLEOFError | ProtocolError) for cause in causes)


def failure(error: BaseException, server: str, proxy: str | None = None, *, sent: bool = False) -> Unreachable:
    """What to tell the user who cannot reach `server` (by way of `proxy`).

    `sent` says whether an attempt before the one that ended with `error` may have arrived.
    """
    causes = list(_causes(error))
    sent = sent or may_have_arrived(error)
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _untrusted(cause, server, sent=sent)
    through = f" through the proxy {_shown(proxy)}" if proxy else ""
    message = f"cannot reach the API server {server}{through}: {_words(causes)}"
    return Unreachable(message, _advice(causes, server, proxy), sent=sent)


def redirected(server: str, location: str | None) -> Failure:
    """What to tell the user of an answer that points elsewhere."""
    return Failure(
        f"{server} is not an API server, or wants a login: it redirects to {location or 'nowhere'}",
        "Check the cluster's server in the kubeconfig.",
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that it wraps, the outermost first."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        cause = waiting.pop(0)
        if isinstance(cause, BaseException) and id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            waiting += [cause.__cause__, getattr(cause, "original_error", None), *cause.args]
            waiting += cause.exceptions if isinstance(cause, BaseExceptionGroup) else ()
            if not cause.__suppress_context__:
                waiting.append(cause.__context__)


def _untrusted(error: ssl.SSLCertVerificationError, server: str, *, sent: bool) -> Unreachable:
    problem, advice = _CERTIFICATE_PROBLEMS.get(error.verify_code, (f"is not accepted: {error.verify_message}", _TRUST))
    return Unreachable(f"the certificate of the API server {server} {problem}", advice, sent=sent)


def _words(causes: list[BaseException]) -> str:
    for cause in causes:
        if isinstance(cause, socket.gaierror):
            return "no name server answers" if cause.errno == socket.EAI_AGAIN else "its name cannot be resolved"
        if _is_timeout(cause):
            return "it does not answer in time"
    for cause in causes:
        if isinstance(cause, ssl.SSLError):
            return f"TLS failed: {(cause.reason or str(cause)).replace('_', ' ').lower()}"
    for cause in causes:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror.lower()
    if any(isinstance(cause, IncompleteRead) for cause in causes):
        return "the connection broke off in the middle of an answer"
    words = " ".join(str(causes[-1]).split())
    return words[:1].lower() + words[1:]


def _is_timeout(error: BaseException) -> bool:
    from urllib3.exceptions import NewConnectionError
    from urllib3.exceptions import TimeoutError as HTTPTimeoutError

    # The first is one of the second in urllib3's eyes.
    return isinstance(error, TimeoutError | HTTPTimeoutError) and not isinstance(error, NewConnectionError)


def _advice(causes: list[BaseException], server: str, proxy: str | None) -> str:
    reasons = {cause.reason for cause in causes if isinstance(cause, ssl.SSLError)}
    if reasons & {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"}:
        return "The server seems to speak plain HTTP: check the cluster's server in the kubeconfig."
    if proxy:
        return "Check the proxy: proxy-url in the kubeconfig, or $HTTPS_PROXY and $NO_PROXY."
    host = urlsplit(server).hostname
    return f"Is the cluster running, and can {host}, the server that the kubeconfig names, be reached from here (VPN)?"


def _shown(proxy: str) -> str:
    """A proxy's URL without its password."""
    url = urlsplit(proxy)
    return f"{url.scheme}://{url.hostname}" + (f":{url.port}" if url.port else "")
