"""Small objects for tests of the stand-in's API server."""

from __future__ import annotations

import copy
from typing import Any

from tests.cluster.standin.store import Object

POD: Object = {
    "kind": "Pod",
    "apiVersion": "v1",
    "metadata": {"name": "a"},
    "spec": {"containers": [{"name": "app", "image": "app:1"}]},
}
JOB: Object = {
    "kind": "Job",
    "apiVersion": "batch/v1",
    "metadata": {"name": "a"},
    "spec": {
        "backoffLimit": 0,
        "activeDeadlineSeconds": 60,
        "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "agent", "image": "agent:1"}]}},
    },
}


def changed(value: Object, **changes: Any) -> Object:
    """The object with values at paths: `spec__containers__0__image="x"`."""
    value = copy.deepcopy(value)
    for path, new in changes.items():
        *parts, last = path.split("__")
        here: Any = value
        for part in parts:
            here = here[int(part)] if part.isdigit() else here.setdefault(part, {})
        here[last] = new
    return value
