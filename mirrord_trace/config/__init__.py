"""The configuration of a run, as values: checked where they are made, never changed afterwards."""

from mirrord_trace.config.model import Delivery, EnvironmentConfiguration, RunConfiguration

__all__ = ["Delivery", "EnvironmentConfiguration", "RunConfiguration"]
