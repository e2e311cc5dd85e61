"""Who a request comes from: bearer tokens and client certificates (k8s.io/apiserver/pkg/authentication)."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

import attrs

from .http import Connection, Request
from .rbac import MASTERS
from .status import unauthorized
from .store import Object

ADMIN = "admin"


@attrs.frozen
class Identity:
    """Somebody whom the API server knows."""

    user: str
    groups: tuple[str, ...]

    def described(self) -> Object:
        """As SelfSubjectReview shows it (authentication/v1 UserInfo)."""
        return {"username": self.user, "groups": list(self.groups)}


ANONYMOUS = Identity("system:anonymous", ("system:unauthenticated",))


@attrs.define
class Identities:
    """The tokens that are valid. Certificates are, if they are of the cluster's authority."""

    _tokens: dict[str, Identity] = attrs.field(factory=dict)
    _revoked: set[str] = attrs.field(factory=set)

    def issue(self, user: str) -> str:
        """A new token for a user."""
        token = secrets.token_hex(16)
        self._tokens[token] = identity(user)
        return token

    def accept(self, token: str, user: str) -> None:
        """Takes a token that somebody else has made, such as an OpenID Connect provider."""
        self._tokens[token] = identity(user)

    def expire(self, user: str) -> None:
        """All tokens that a user has are no longer valid; new ones are."""
        self._tokens = {token: known for token, known in self._tokens.items() if known.user != user}

    def revoke_certificates(self, user: str) -> None:
        """A user's certificates are no longer valid, as if they had expired."""
        self._revoked.add(user)

    def of(self, request: Request, connection: Connection) -> Identity:
        """Who makes a request; without any credentials, anonymous. Raises Refused."""
        if connection.certificate is not None:
            named = _named(connection.certificate)
            if named.user in self._revoked:
                raise unauthorized()
            return named
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if not scheme:
            return ANONYMOUS
        if scheme.lower() != "bearer" or token.strip() not in self._tokens:
            raise unauthorized()
        return self._tokens[token.strip()]


def identity(user: str) -> Identity:
    """A user with the groups that everybody is in, and who runs the cluster."""
    return Identity(user, (MASTERS, "system:authenticated") if user == ADMIN else ("system:authenticated",))


def _named(certificate: Mapping[str, object]) -> Identity:
    """The user that a certificate is for: its common name; its organizations are groups."""
    subject = certificate["subject"]
    assert isinstance(subject, tuple)
    pairs = [pair for part in subject for pair in part]
    user = next(value for name, value in pairs if name == "commonName")
    groups = tuple(value for name, value in pairs if name == "organizationName")
    known = identity(user)
    return attrs.evolve(known, groups=(*known.groups, *groups))
