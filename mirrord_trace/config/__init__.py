"""The configuration of a run, as values: checked where they are made, never changed afterwards."""

from mirrord_trace.config.model import (
    AgentConfiguration,
    AgentMode,
    Capability,
    ClusterConfiguration,
    Delivery,
    EnvironmentConfiguration,
    PullPolicy,
    RunConfiguration,
)

__all__ = [
    "AgentConfiguration",
    "AgentMode",
    "Capability",
    "ClusterConfiguration",
    "Delivery",
    "EnvironmentConfiguration",
    "PullPolicy",
    "RunConfiguration",
]
