"""What one source of configuration says: a file, or the flags of a command.

The sections and names are those of mirrord's configuration file. Nothing need be said: None leaves a field to the next
source. Sources are merged, flags over file, and what is still open then becomes the default of `model`.
"""

import re
from collections.abc import Mapping
from typing import Any, Final, TypeVar

import attrs

from mirrord_trace.config.model import (
    AgentConfiguration,
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
    SessionConfiguration,
    TreeKind,
    check_choice_of_variables,
)


@attrs.frozen(kw_only=True)
class Section:
    """A part of a document whose fields are merged one by one."""


@attrs.frozen(kw_only=True)
class TargetSection(Section):
    """`target`. As a text it is the path alone."""

    path: str | None = None
    """As `-t` takes it."""
    namespace: str | None = None


@attrs.frozen(kw_only=True)
class AgentSection(Section):
    """`agent`. See `AgentConfiguration` for what the fields mean; times are in seconds."""

    ephemeral: bool | None = None
    image: str | None = None
    image_pull_policy: PullPolicy | None = None
    image_pull_secrets: tuple[str, ...] | None = None
    namespace: str | None = None
    labels: Mapping[str, str] | None = None
    annotations: Mapping[str, str] | None = None
    tolerations: tuple[Mapping[str, Any], ...] | None = None
    node_selector: Mapping[str, str] | None = None
    resources: Mapping[str, Mapping[str, str]] | None = None
    service_account: str | None = None
    priority_class: str | None = None
    ttl: int | None = None
    startup_timeout: float | None = None
    communication_timeout: float | None = None
    privileged: bool | None = None
    disabled_capabilities: frozenset[Capability] | None = None
    disable_mesh_sidecar_injection: bool | None = None
    flush_connections: bool | None = None
    """See `IncomingConfiguration`, like the next."""
    inject_headers: bool | None = None


@attrs.frozen(kw_only=True)
class EnvironmentSection(Section):
    """`feature.env`. As true or false it is `enabled`. See `EnvironmentConfiguration`."""

    enabled: bool | None = None
    include: tuple[str, ...] | None = None
    exclude: tuple[str, ...] | None = None
    env_file: str | None = None
    mapping: tuple[tuple[re.Pattern[str], str], ...] | None = None
    override: Mapping[str, str] | None = None
    unset: tuple[str, ...] | None = None

    def __attrs_post_init__(self) -> None:
        check_choice_of_variables(self.enabled, self.include, self.exclude)

    def decided(self) -> "EnvironmentSection":
        """Which variables are taken is decided together: who says one thing of it says all, over what others say."""
        if self.enabled is None and self.include is None and self.exclude is None:
            return self
        enabled = self.enabled is not False
        return attrs.evolve(self, enabled=enabled, include=self.include or (), exclude=self.exclude or ())


@attrs.frozen(kw_only=True)
class FilesSection(Section):
    """`feature.fs`. As a text it is `mode`, as true or false `read` or `local`. See `FilesConfiguration`."""

    mode: FilesMode | None = None
    read_write: tuple[re.Pattern[str], ...] | None = None
    read_only: tuple[re.Pattern[str], ...] | None = None
    local: tuple[re.Pattern[str], ...] | None = None
    not_found: tuple[re.Pattern[str], ...] | None = None
    mapping: tuple[tuple[re.Pattern[str], str], ...] | None = None


@attrs.frozen(kw_only=True)
class OutgoingSection(Section):
    """`feature.network.outgoing`. As true or false it is `tcp` and `udp`."""

    tcp: bool | None = None
    udp: bool | None = None
    ignore_localhost: bool | None = None
    unix_streams: tuple[re.Pattern[str], ...] | None = None


@attrs.frozen(kw_only=True)
class IncomingSection(Section):
    """`feature.network.incoming`. As a text it is `mode`, as true or false `mirror` or `off`.

    See `IncomingConfiguration`.
    """

    mode: IncomingMode | None = None
    ports: frozenset[int] | None = None
    ignore_ports: frozenset[int] | None = None
    ignore_localhost: bool | None = None
    port_mapping: Mapping[int, int] | None = None
    listen_ports: Mapping[int, int] | None = None
    http_filter: HttpFilter | None = None
    """One value, not a section: a filter is one or the other."""
    all_pods: bool | None = None


@attrs.frozen(kw_only=True)
class NetworkSection(Section):
    """`feature.network`. As true or false it is `outgoing` and `incoming`."""

    incoming: IncomingSection = IncomingSection()
    outgoing: OutgoingSection = OutgoingSection()


@attrs.frozen(kw_only=True)
class MagicSection(Section):
    """`feature.magic`. See `MagicConfiguration`."""

    auto_mount: bool | None = None
    aws: bool | None = None


@attrs.frozen(kw_only=True)
class FeatureSection(Section):
    """`feature`."""

    env: EnvironmentSection = EnvironmentSection()
    hostname: bool | None = None
    magic: MagicSection = MagicSection()
    fs: FilesSection = FilesSection()
    network: NetworkSection = NetworkSection()


@attrs.frozen(kw_only=True)
class Document(Section):
    """All that one source says."""

    target: TargetSection = TargetSection()
    agent: AgentSection = AgentSection()
    feature: FeatureSection = FeatureSection()
    kubeconfig: str | None = None
    kube_context: str | None = None
    accept_invalid_certificates: bool | None = None

    def cluster_configuration(self) -> ClusterConfiguration:
        """Which cluster, and as whom."""
        return ClusterConfiguration(
            kubeconfig=self.kubeconfig,
            context=self.kube_context,
            namespace=self.target.namespace,
            accept_invalid_certificates=bool(self.accept_invalid_certificates),
        )

    def agent_configuration(self) -> AgentConfiguration:
        """How the agent is started. Raises ValueError for what cannot be meant."""
        given = _said(_about_agent_alone(self.agent))
        if "ephemeral" in given:
            given["mode"] = "ephemeral" if given.pop("ephemeral") else "job"
        for name in ("ttl", "startup_timeout", "communication_timeout"):
            if name in given:
                given[f"{name}_s"] = given.pop(name)
        return AgentConfiguration(**given)

    def run_configuration(
        self,
        command: tuple[str, ...],
        *,
        connect_hold_s: float,
        delivery: Delivery,
        tree: TreeKind,
        sudo: bool,
        trace: str | None = None,
    ) -> RunConfiguration:
        """What `mirrord-trace run` is to do; the parameters are what only flags can say. Raises ValueError."""
        outgoing = self.feature.network.outgoing
        target = self._default_target() if self.target.path is None else self.target.path
        return RunConfiguration(
            command=command,
            target=target,
            cluster=self.cluster_configuration(),
            agent=self.agent_configuration(),
            environment=EnvironmentConfiguration(**_said(self.feature.env)),
            magic=MagicConfiguration(**_said(self.feature.magic)),
            hostname=self.feature.hostname is not False,
            files=FilesConfiguration(tree=tree, **_said(self.feature.fs)),
            outgoing_tcp=outgoing.tcp is not False,
            outgoing_udp=outgoing.udp is not False,
            ignore_localhost=bool(outgoing.ignore_localhost),
            unix_streams=outgoing.unix_streams or (),
            incoming=self._incoming_configuration(target),
            connect_hold_s=connect_hold_s,
            delivery=delivery,
            sudo=sudo,
            trace=trace,
        )

    def session_configuration(self, *, sudo: bool) -> SessionConfiguration:
        """What a command that runs no process is to do; `sudo` is what only a flag can say. Raises ValueError."""
        return SessionConfiguration(
            target=self._default_target() if self.target.path is None else self.target.path,
            cluster=self.cluster_configuration(),
            agent=self.agent_configuration(),
            sudo=sudo,
        )

    def _incoming_configuration(self, target: str) -> IncomingConfiguration:
        """Nothing comes to where there is no pod."""
        incoming = self.feature.network.incoming
        if target == "targetless":
            if incoming.mode == "steal":
                raise ValueError("there is nothing to steal without a target")
            if incoming.all_pods:
                raise ValueError("all pods cannot be served without a target: there is none")
            incoming = attrs.evolve(incoming, mode="off")
        given = _said(incoming)
        for name in _ABOUT_PORTS:
            if (value := getattr(self.agent, name)) is not None:
                given[name] = value
        return IncomingConfiguration(**given)

    def _default_target(self) -> str:
        """The demo pod needs no cluster; but who names a cluster, or an agent in it, wants to be there."""
        about_cluster = attrs.evolve(self, feature=FeatureSection(), agent=_about_agent_alone(self.agent))
        return "demo" if about_cluster == Document() else "targetless"


_ABOUT_PORTS: Final = ("flush_connections", "inject_headers")
"""What mirrord's file says of the agent, and an agent of ours learns with each port."""


def _about_agent_alone(section: AgentSection) -> AgentSection:
    return attrs.evolve(section, **dict.fromkeys(_ABOUT_PORTS))


def _said(section: Section) -> dict[str, Any]:
    return {name: value for name, value in attrs.asdict(section, recurse=False).items() if value is not None}


_S = TypeVar("_S", bound=Section)


def merged(over: _S, under: _S) -> _S:
    """What `over` says, and where it says nothing, what `under` says."""
    values = {}
    for field in attrs.fields(type(over)):
        first, second = getattr(over, field.name), getattr(under, field.name)
        if isinstance(first, Section):
            values[field.name] = merged(first, second)
        else:
            values[field.name] = second if first is None else first
    return type(over)(**values)
