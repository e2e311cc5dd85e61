"""Run a local process inside a pod's world: the half that lives on the developer's machine."""

__version__ = "0.1.0"
