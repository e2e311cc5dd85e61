"""Images and the registry that has them: which can be pulled, by whom, how long that takes, and why it fails.

The words of failures are containerd's and the kubelet's.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from pathlib import Path

import attrs
import trio

from ..store import Object

# distribution's reference grammar, without digests' details (distribution/reference, regexp.go).
_REFERENCE = re.compile(
    r"(?:(?P<host>[A-Za-z0-9.-]+(?::[0-9]+)?)/)?"
    r"(?P<path>[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?(?P<digest>@sha256:[0-9a-f]{64})?"
)


class ImageTrouble(Exception):
    """Why a container has no image; `reason` is that of its waiting state."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@attrs.define(eq=False)
class Image:
    """What a registry has under a name."""

    root: Path
    """Where this machine has it unpacked."""
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    files: Mapping[str, bytes] = attrs.field(factory=dict)
    """What it has besides `root`; what begins with #! is executable."""
    environment: Mapping[str, str] = attrs.field(factory=dict)
    directory: str = "/"
    user: int = 0
    present: bool = True
    """On the nodes already."""
    pull_secret: str | None = None
    """Only who names this secret may pull it."""
    delivered: trio.Event | None = None
    """A pull takes until this is set; to be set in the stand-in's loop."""


@attrs.define
class Registry:
    """All images there are, by the names that pods call them."""

    images: dict[str, Image] = attrs.field(factory=dict)

    async def pull(self, name: str, secrets: Collection[str]) -> None:
        """Brings an image to the node. Raises ImageTrouble."""
        reference = full_reference(name)
        failed = f'failed to pull and unpack image "{reference}": '
        host = reference.partition("/")[0]
        if host.endswith((".invalid", ".example")):
            repository, _, tag = reference.partition("/")[2].rpartition(":")
            raise ImageTrouble(
                "ErrImagePull",
                f'{failed}failed to resolve reference "{reference}": failed to do request: Head '
                f'"https://{host}/v2/{repository}/manifests/{tag}": dial tcp: lookup {host}: no such host',
            )
        image = self.images.get(name)
        if image is None:
            raise ImageTrouble(
                "ErrImagePull",
                f'rpc error: code = NotFound desc = {failed}failed to resolve reference "{reference}": '
                f"{reference}: not found",
            )
        if image.pull_secret is not None and image.pull_secret not in secrets:
            raise ImageTrouble(
                "ErrImagePull",
                f'{failed}failed to resolve reference "{reference}": pull access denied, repository does not exist or '
                "may require authorization: server message: insufficient_scope: authorization failed",
            )
        if image.delivered is not None:
            await image.delivered.wait()
        image.present = True

    def needs_pull(self, name: str, policy: str) -> bool:
        """Whether the kubelet pulls before it starts a container. Raises ImageTrouble."""
        full_reference(name)
        image = self.images.get(name)
        present = image is not None and image.present
        if policy == "Never" and not present:
            raise ImageTrouble(
                "ErrImageNeverPull", f'Container image "{name}" is not present with pull policy of Never'
            )
        return policy == "Always" or not present


def full_reference(name: str) -> str:
    """An image's name with registry and tag, as containerd says it. Raises ImageTrouble for what is no name."""
    match = _REFERENCE.fullmatch(name)
    if match is None:
        raise ImageTrouble(
            "InvalidImageName",
            f'Failed to apply default image tag "{name}": couldn\'t parse image name "{name}": invalid reference '
            "format",
        )
    host, path = match["host"], match["path"]
    # Docker's rule: without a dot, a colon or "localhost" the first part is no host.
    if host is not None and host != "localhost" and not re.search(r"[.:]", host):
        host, path = None, f"{host}/{path}"
    if host is None:
        host, path = "docker.io", path if "/" in path else f"library/{path}"
    tag = match["digest"] or f":{match['tag'] or 'latest'}"
    return f"{host}/{path}{tag}"


def image_status(name: str) -> Object:
    """`image` and `imageID` of a container's status."""
    reference = full_reference(name)
    repository = reference.partition("@")[0].rpartition(":")[0] or reference
    return {"image": reference, "imageID": f"{repository}@sha256:{hashlib.sha256(reference.encode()).hexdigest()}"}
