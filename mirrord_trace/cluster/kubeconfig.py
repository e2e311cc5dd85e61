"""Which cluster is meant, and what the kubeconfig says about it.

Files are read and merged as kubectl does it: of several the first to name a cluster, a user, a context or the current
context wins (the official client lets the last current context win), empty files count as none, and names of files are
relative to the file that has them. The official client gets the one context that was chosen.
"""

from __future__ import annotations

import base64
import binascii
import os
import tempfile
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import attrs

from mirrord_trace.errors import Failure, UsageFailure

Section = dict[str, Any]
"""A part of a kubeconfig, in its own words."""

_FIELDS: dict[str, dict[str, type]] = {
    "context": {"cluster": str, "user": str, "namespace": str},
    "cluster": {
        "server": str,
        "certificate-authority": str,
        "certificate-authority-data": str,
        "insecure-skip-tls-verify": bool,
        "tls-server-name": str,
        "proxy-url": str,
        "extensions": list,
    },
    "user": {
        "client-certificate": str,
        "client-certificate-data": str,
        "client-key": str,
        "client-key-data": str,
        "token": str,
        "tokenFile": str,
        "username": str,
        "password": str,
        "exec": dict,
        "auth-provider": dict,
        "as": str,
        "as-uid": str,
        "as-groups": list,
        "as-user-extra": dict,
    },
}
"""What is looked at, and of what type it is (k8s.io/client-go/tools/clientcmd/api/v1). The rest is passed on."""
_TYPE_NAMES = {str: "text", bool: "true or false", list: "a list", dict: "a section"}
_FILE_FIELDS = {
    "cluster": ("certificate-authority",),
    "user": ("client-certificate", "client-key", "tokenFile"),
}
_DATA_FIELDS = {
    "cluster": ("certificate-authority",),
    "user": ("client-certificate", "client-key"),
}


@attrs.frozen
class Context:
    """A context with its cluster and its user.

    Names of files in them are absolute, and the scheme of the server is in lower case.
    """

    file: Path
    """The kubeconfig that has the user, or the context where there is no user."""
    name: str
    namespace: str | None
    cluster: Section
    user: Section
    user_name: str
    document: Section
    """All that is in `file`; what `user` holds in depth is the same as in it."""

    def save(self) -> None:
        """Write the file anew, after the official client has put fresh OIDC tokens into the user's section."""
        import yaml

        path = self.file.resolve()
        text = yaml.safe_dump(self.document, default_flow_style=False, sort_keys=False)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with open(descriptor, "w", encoding="utf-8") as file:
                os.fchmod(descriptor, path.stat().st_mode & 0o777)
                file.write(text)
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise


def of_no_use(context: Context | None, why: Exception | str) -> Failure:
    """What to tell the user of a context, or with None of the pod's service account, that leads nowhere."""
    words = " ".join(str(why).split()) or type(why).__name__
    if isinstance(why, KeyError):
        words = f"{words} is missing"
    if context is None:
        return Failure(f"cannot use the pod's service account: {words}")
    return Failure(f"cannot use the context {context.name} of {context.file}: {words}")


def find(kubeconfig: str | None, context: str | None, environment: Mapping[str, str]) -> Context | None:
    """The context that is meant, or None when there is no kubeconfig at all.

    `kubeconfig` and `context` are what the user asked for, if anything. Raises `Failure` for a file that cannot be
    read or understood, and for a context, a cluster or a user that none has.
    """
    paths = [_expanded(kubeconfig)] if kubeconfig else usual_files(environment)
    documents = [(path, document) for path in paths if (document := _read(path, must_exist=bool(kubeconfig)))]
    if not documents:
        if kubeconfig:
            raise Failure(f"the kubeconfig {paths[0]} is empty")
        return None
    name = context or next((str(name) for _, document in documents if (name := document.get("current-context"))), None)
    known = sorted({entry["name"] for path, document in documents for entry in _entries(path, document, "contexts")})
    if not name:
        raise Failure(
            f"no context is chosen in {_files(documents)}",
            f"Choose one with --context. There are: {', '.join(known)}." if known else None,
        )
    chosen = _named(documents, "context", name)
    if chosen is None:
        raise _unknown_context(name, known, _files(documents), asked_for=context is not None)
    path, document, section = chosen
    cluster = _named(documents, "cluster", section.get("cluster", ""))
    if cluster is None:
        raise Failure(
            f"the context {name} in {path} is of the cluster {section.get('cluster', '')!r}, which is not there"
        )
    user = _named(documents, "user", section["user"]) if section.get("user") else (path, document, {})
    if user is None:
        raise Failure(f"the context {name} in {path} is for the user {section['user']!r}, who is not there")
    return Context(
        file=user[0],
        name=name,
        namespace=section.get("namespace") or None,
        cluster=_with_plain_scheme(_absolute(cluster[2], "cluster", cluster[0].parent)),
        user=_absolute(user[2], "user", user[0].parent),
        user_name=section.get("user", ""),
        document=user[1],
    )


def usual_files(environment: Mapping[str, str]) -> list[Path]:
    """Where kubectl looks: $KUBECONFIG, which may name several files, else ~/.kube/config, for who has a home.

    Raises `Failure` when $KUBECONFIG names the home of a user that there is not.
    """
    if named := environment.get("KUBECONFIG"):
        return [_expanded(name) for name in named.split(":") if name]
    try:
        return [Path("~/.kube/config").expanduser()]
    except RuntimeError:  # as in a container whose user is in no passwd(5)
        return []


def _expanded(name: str) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError as error:
        raise Failure(f"cannot tell where the kubeconfig {name} is: {Path(name).parts[0]} has no home") from error


def _read(path: Path, *, must_exist: bool) -> Section | None:
    import yaml

    try:
        text = path.read_bytes()
    except FileNotFoundError:
        if must_exist:
            raise UsageFailure(f"there is no kubeconfig {path}") from None
        return None
    except OSError as error:
        raise Failure(f"cannot read the kubeconfig {path}: {error.strerror}") from error
    try:
        document = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, ValueError) as error:  # of bytes that are no UTF-8, of no real date
        raise Failure(f"the kubeconfig {path} is not valid YAML: {' '.join(str(error).split())}") from error
    if document is None:
        return None
    if not isinstance(document, dict):
        raise Failure(f"{path} is not a kubeconfig: it holds no fields")
    return document


def _entries(path: Path, document: Section, plural: str) -> Iterator[Section]:
    entries = document.get(plural) or []
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get("name"), str) for entry in entries
    ):
        raise Failure(f"the kubeconfig {path} is not valid: {plural!r} must be a list of entries with names")
    yield from entries


def _named(documents: list[tuple[Path, Section]], kind: str, name: str) -> tuple[Path, Section, Section] | None:
    for path, document in documents:
        for entry in _entries(path, document, f"{kind}s"):
            if entry["name"] == name:
                return path, document, _checked(entry.get(kind) or {}, kind, f"the {kind} {name}", path)
    return None


def _checked(section: object, kind: str, owner: str, path: Path) -> Section:
    """A section whose fields are of the right types; empty ones count as none."""
    if not isinstance(section, dict):
        raise Failure(f"the kubeconfig {path} is not valid: {owner} has no fields")
    checked = {field: value for field, value in section.items() if value is not None}
    for field, kind_of_value in _FIELDS[kind].items():
        if field in checked and not isinstance(checked[field], kind_of_value):
            raise Failure(
                f"the kubeconfig {path} is not valid: {field} of {owner} must be {_TYPE_NAMES[kind_of_value]}"
            )
    return checked


def _absolute(section: Section, kind: str, folder: Path) -> Section:
    files = {field: str(folder / section[field]) for field in _FILE_FIELDS[kind] if section.get(field)}
    return {**section, **files}


def _with_plain_scheme(cluster: Section) -> Section:
    """A cluster with its server's scheme in lower case: the official client looks for "https" as it is written here."""
    scheme, separator, rest = cluster.get("server", "").partition("://")
    return {**cluster, "server": f"{scheme.lower()}{separator}{rest}"} if separator else cluster


def _unknown_context(name: str, known: list[str], files: str, *, asked_for: bool) -> Failure:
    message = f"there is no context {name!r} in {files}" + ("" if asked_for else ", though it is the current one")
    near = get_close_matches(name, known, n=1)
    advice = f"Did you mean {near[0]}? " if near else ""
    advice += f"There are: {', '.join(known)}." if known else "There are no contexts at all."
    return UsageFailure(message, advice) if asked_for else Failure(message, advice)


def _files(documents: list[tuple[Path, Section]]) -> str:
    return ", ".join(str(path) for path, _ in documents)


def decoded(section: Mapping[str, Any], kind: str, owner: str) -> Iterator[tuple[str, bytes]]:
    """What a section of a kind, "cluster" or "user", has as data in place of a file: field of the file, contents.

    Raises `Failure` for what is not base64.
    """
    for field in _DATA_FIELDS[kind]:
        if data := section.get(f"{field}-data"):
            try:
                yield field, base64.b64decode(data)
            except (binascii.Error, ValueError, TypeError) as error:
                raise Failure(f"{field}-data of {owner} is not base64: {error}") from error
