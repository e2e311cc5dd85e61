"""The configuration as attrs classes.

Field names and defaults follow mirrord's where both have the field (`target`, `agent`, `feature.env`,
`feature.network.outgoing`); times carry their unit in the name.
"""

import re
from collections.abc import Mapping
from typing import Any, Final, Literal

import attrs

from mirrord_trace import __version__

MAXIMUM_S: Final = 2**31 - 1
"""The longest time: a job's ttlSecondsAfterFinished is an int32."""

Delivery = Literal["auto", "notify", "ptrace"]
FilesMode = Literal["read", "write", "local", "localwithoverrides"]
TreeKind = Literal["auto", "fuse", "copy"]
AgentMode = Literal["job", "ephemeral"]
PullPolicy = Literal["Always", "IfNotPresent", "Never"]
IncomingMode = Literal["mirror", "steal", "off"]
Capability = Literal["NET_ADMIN", "NET_RAW", "SYS_ADMIN", "SYS_PTRACE"]
"""What an agent may be given; agent/README.md says what each is for."""
FILTER_BYTES: Final = 12_288
"""The longest filter of HTTP requests, in UTF-8: what a frame has room for."""


def check_choice_of_variables(enabled: bool | None, include: tuple[str, ...] | None, exclude: object) -> None:
    """Raises ValueError for what cannot be meant together."""
    if include and exclude:
        raise ValueError("environment variables can be included or excluded, not both")
    if enabled is False and (include or exclude):
        raise ValueError("environment variables cannot be chosen where none are taken")


@attrs.frozen
class EnvironmentConfiguration:
    """Which environment the process gets; `mirrord_trace.policy.environment` says in which order."""

    enabled: bool = True
    """False: none of the target's variables are taken."""
    include: tuple[str, ...] = ()
    """Only variables that match one of these; none given means all. Patterns know `*` and `?`."""
    exclude: tuple[str, ...] = ()
    """All but those that match one of these. Cannot be combined with `include`."""
    env_file: str | None = None
    """A file of variables on this machine; see `env_file`."""
    from_file: Mapping[bytes, bytes] = attrs.Factory(dict)
    """What it says, once it has been read."""
    mapping: tuple[tuple[re.Pattern[str], str], ...] = ()
    """What the variables are set to in whose names the first of these finds something."""
    override: Mapping[str, str] = attrs.Factory(dict)
    """Variables and their values, whatever was said before."""
    unset: tuple[str, ...] = ()
    """Variables that the process does not get, in upper and lower case alike."""

    def __attrs_post_init__(self) -> None:
        check_choice_of_variables(self.enabled, self.include, self.exclude)


def _not_negative(_instance: object, attribute: "attrs.Attribute[float]", value: float) -> None:
    if not value >= 0:
        raise ValueError(f"{attribute.name} must not be negative, but is {value}")


def _positive(_instance: object, attribute: "attrs.Attribute[float]", value: float) -> None:
    if not 0 < value <= MAXIMUM_S:
        raise ValueError(f"{attribute.name} must be more than 0 and at most {MAXIMUM_S}, but is {value}")


def _whole(_instance: object, attribute: "attrs.Attribute[int]", value: int) -> None:
    if not 0 <= value <= MAXIMUM_S:
        raise ValueError(f"{attribute.name} must be from 0 to {MAXIMUM_S}, but is {value}")


@attrs.frozen(kw_only=True)
class ClusterConfiguration:
    """Which cluster is spoken to, and as whom."""

    kubeconfig: str | None = None
    """A file instead of $KUBECONFIG and ~/.kube/config."""
    context: str | None = None
    """A context of the kubeconfig instead of its current one."""
    namespace: str | None = None
    """The target's namespace; None for the context's."""
    accept_invalid_certificates: bool = False
    """True: the API server's certificate is not checked."""


@attrs.frozen(kw_only=True)
class AgentConfiguration:
    """How the agent is started next to a target in a cluster."""

    mode: AgentMode = "job"
    image: str = f"mirrord-trace-agent:{__version__}"
    image_pull_policy: PullPolicy = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = ()
    """Names of secrets in the agent's namespace."""
    namespace: str | None = None
    """Where the agent's job is made; None for the target's namespace."""
    labels: Mapping[str, str] = attrs.Factory(dict)
    """Added to the agent's job and pod."""
    annotations: Mapping[str, str] = attrs.Factory(dict)
    tolerations: tuple[Mapping[str, Any], ...] = ({"operator": "Exists"},)
    """In Kubernetes' words."""
    node_selector: Mapping[str, str] = attrs.Factory(dict)
    """Where a targetless agent may run; with a target it runs on the target's node."""
    resources: Mapping[str, Mapping[str, str]] = attrs.field(
        factory=lambda: {
            "requests": {"cpu": "1m", "memory": "1Mi"},
            "limits": {"cpu": "1", "memory": "100Mi"},
        }
    )
    """In Kubernetes' words: requests and limits."""
    service_account: str | None = None
    priority_class: str | None = None
    ttl_s: int = attrs.field(default=1, validator=_whole)
    """How long the cluster keeps the job of an agent that has ended by itself; whole seconds, as in a job."""
    startup_timeout_s: float = attrs.field(default=60.0, validator=_positive)
    """How long to wait until the agent can serve."""
    communication_timeout_s: float = attrs.field(default=30.0, validator=_positive)
    """The agent leaves after hearing nothing for so long."""
    privileged: bool = False
    disabled_capabilities: frozenset[Capability] = frozenset()
    """Capabilities that the agent is not given; what needs them fails, with words."""
    disable_mesh_sidecar_injection: bool = True

    def __attrs_post_init__(self) -> None:
        if self.privileged and self.disabled_capabilities:
            raise ValueError("a privileged agent has all capabilities: agent.disabled_capabilities would do nothing")


@attrs.frozen(kw_only=True)
class FilesConfiguration:
    """Whose files the process gets; `mirrord_trace.policy.files` says what follows from it.

    Patterns, as `patterns.path_pattern` makes them, are searched in absolute paths; the path is text in UTF-8, bytes
    that are none as surrogates.
    """

    mode: FilesMode = "read"
    """What happens to paths that no pattern and no default list knows: `read`: read at the target and written here;
    `write`: both at the target; `localwithoverrides`: both here. `local`: all files are this machine's."""
    read_write: tuple[re.Pattern[str], ...] = ()
    """Read and written at the target."""
    read_only: tuple[re.Pattern[str], ...] = ()
    """Read at the target, written here."""
    local: tuple[re.Pattern[str], ...] = ()
    """Read and written here."""
    not_found: tuple[re.Pattern[str], ...] = ()
    """Nowhere: ENOENT."""
    mapping: tuple[tuple[re.Pattern[str], str], ...] = ()
    """What the first of these finds in a path is replaced before anything is decided. What replaces it is a template
    as `re.Match.expand` takes it: `patterns.replacement` makes one of mirrord's."""
    tree: TreeKind = "auto"
    """As what the target's files appear on this machine: a FUSE mount, or copies of what is read."""

    @property
    def is_local_only(self) -> bool:
        """Whether every file is this machine's."""
        return self.mode == "local"

    @property
    def may_write_remotely(self) -> bool:
        """Whether there may be files that are written at the target."""
        return self.mode == "write" or (not self.is_local_only and bool(self.read_write))


@attrs.frozen(kw_only=True)
class MagicConfiguration:
    """What is done unasked because most users want it."""

    auto_mount: bool = True
    """What the target has mounted is the target's, whatever the mode of files."""
    aws: bool = True
    """The process acts as the target towards AWS: it gets neither the profile of this machine nor `~/.aws`."""


@attrs.frozen
class HttpFilter:
    """Which HTTP requests are meant, and on which ports."""

    requests: str
    """Their description in JSON, as `mirrord_agent.wire.frames.Subscribe` takes it."""
    ports: frozenset[int] | None = None
    """None: on all."""


@attrs.frozen(kw_only=True)
class IncomingConfiguration:
    """Which ports of the target the process serves; `mirrord_trace.policy.incoming` says what follows from it."""

    mode: IncomingMode = "mirror"
    """What becomes of traffic to a port that the process listens on: it reaches the process, too; or only the process;
    or all stays as it is."""
    ports: frozenset[int] | None = None
    """Only these; None: all. Cannot be combined with `ignore_ports`."""
    ignore_ports: frozenset[int] = frozenset()
    ignore_localhost: bool = False
    """True: who listens on a loopback address listens on this machine only."""
    port_mapping: Mapping[int, int] = attrs.Factory(dict)
    """The target's port for the process's, where they differ."""
    listen_ports: Mapping[int, int] = attrs.Factory(dict)
    """This machine's port for the one that the process asks for."""
    http_filter: HttpFilter | None = None
    """Only these requests."""
    flush_connections: bool = True
    """Whether connections that the target already has are reset when its port is stolen."""
    inject_headers: bool = False
    """Whether responses of the process get a header that says so, where requests are filtered."""
    all_pods: bool = False
    """Whether this is so for all pods of the target's workload, and not only for the one that is chosen."""

    def __attrs_post_init__(self) -> None:
        if self.all_pods and self.mode == "off":
            raise ValueError("all pods cannot be served where incoming traffic is off")
        if self.ports is not None and self.ignore_ports:
            raise ValueError("ports of incoming traffic can be chosen or ignored, not both")


@attrs.frozen(kw_only=True)
class SessionConfiguration:
    """What a command was asked to do that serves a session with an agent and runs no process."""

    target: str
    """As of `RunConfiguration`, like the others."""
    cluster: ClusterConfiguration
    agent: AgentConfiguration
    sudo: bool = False


@attrs.frozen(kw_only=True)
class RunConfiguration:
    """What `mirrord-trace run` was asked to do."""

    command: tuple[str, ...] = attrs.field(validator=attrs.validators.min_len(1))
    """Program and arguments; the program is looked up in the process's PATH."""
    target: str = "demo"
    """Where the process shall seem to run, as the user names it; see `mirrord_trace.targets.parse_target`."""
    cluster: ClusterConfiguration = attrs.Factory(ClusterConfiguration)
    agent: AgentConfiguration = attrs.Factory(AgentConfiguration)
    environment: EnvironmentConfiguration = EnvironmentConfiguration()
    magic: MagicConfiguration = MagicConfiguration()
    hostname: bool = True
    """False: the process sees this machine's host name."""
    files: FilesConfiguration = FilesConfiguration()
    outgoing_tcp: bool = True
    """False: TCP connections leave from this machine."""
    outgoing_udp: bool = True
    """False: datagrams leave from this machine. Name lookups mostly are datagrams."""
    ignore_localhost: bool = False
    """True: loopback destinations are always this machine's, never the target's."""
    unix_streams: tuple[re.Pattern[str], ...] = ()
    """Unix stream sockets whose path (abstract names without their NUL) one of these finds are the target's."""
    incoming: IncomingConfiguration = attrs.Factory(IncomingConfiguration)
    connect_hold_s: float = attrs.field(default=0.3, validator=_not_negative)
    """How long a non-blocking connect waits for the far side's answer before it returns EINPROGRESS."""
    delivery: Delivery = "auto"
    """How system calls are intercepted."""
    trace: str | None = None
    """The file that gets every intercepted call; None: no trace is written."""
    sudo: bool = False
    """True: the agent, and nothing else, is started through sudo. For targets on this machine."""
