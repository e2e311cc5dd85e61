"""The configuration of a run, as values: checked where they are made, never changed afterwards."""

from mirrord_trace.config.model import (
    AgentConfiguration,
    AgentMode,
    Capability,
    ClusterConfiguration,
    Delivery,
    EnvironmentConfiguration,
    FilesConfiguration,
    FilesMode,
    HttpFilter,
    IncomingConfiguration,
    IncomingMode,
    MagicConfiguration,
    PullPolicy,
    RunConfiguration,
    TreeKind,
)

__all__ = [
    "AgentConfiguration",
    "AgentMode",
    "Capability",
    "ClusterConfiguration",
    "Delivery",
    "EnvironmentConfiguration",
    "FilesConfiguration",
    "FilesMode",
    "HttpFilter",
    "IncomingConfiguration",
    "IncomingMode",
    "MagicConfiguration",
    "PullPolicy",
    "RunConfiguration",
    "TreeKind",
]
