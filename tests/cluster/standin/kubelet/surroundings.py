"""What the parts of a kubelet share."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from ..containers.client import Client
from ..containers.network import PodNetwork
from ..events import Recorder
from ..store import Store
from .images import Registry


@attrs.frozen
class Pace:
    """How long the kubelet waits where a real one waits too, in seconds; defaults suit tests."""

    crash_back_off_s: float = 10.0
    """Before a second restart, and twice as long before each further one, as the real one does."""
    image_back_off_s: float = 10.0
    """Before another pull is tried."""
    image_error_s: float = 0.1
    """From ErrImagePull to ImagePullBackOff; until the next sync, in reality."""
    retry_s: float = 0.1
    """Before it looks again for what is missing (ConfigMaps, Secrets)."""
    first_probe_s: float = 0.01
    """From the first readiness probe to the second; the pauses grow up to its `periodSeconds`."""


@attrs.frozen
class Surroundings:
    """A node, as its pods' workers see it."""

    node: str
    address: str
    """The node's, `hostIP` of its pods."""
    runtime: Client
    store: Store
    registry: Registry
    recorder: Recorder
    nodes_network: int
    """A descriptor: where probes come from."""
    directory: str
    """For volumes; the node's own."""
    allocate: Callable[[], PodNetwork]
    """A place in the network that nobody has had before."""
    pace: Pace
