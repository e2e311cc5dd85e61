import re
from typing import Any

import attrs
import pytest

from mirrord_trace.config import (
    AgentConfiguration,
    ClusterConfiguration,
    EnvironmentConfiguration,
    FilesConfiguration,
    HttpFilter,
    IncomingConfiguration,
    MagicConfiguration,
    RunConfiguration,
)
from mirrord_trace.config.document import (
    AgentSection,
    Document,
    EnvironmentSection,
    FeatureSection,
    FilesSection,
    IncomingSection,
    MagicSection,
    NetworkSection,
    OutgoingSection,
    TargetSection,
    merged,
)


def run_configuration(document: Document) -> RunConfiguration:
    return document.run_configuration(("true",), connect_hold_s=0.3, delivery="auto", tree="auto", sudo=False)


def outgoing(section: OutgoingSection) -> Document:
    return Document(feature=FeatureSection(network=NetworkSection(outgoing=section)))


def test_nothing_said_is_the_defaults() -> None:
    assert run_configuration(Document()) == RunConfiguration(command=("true",))


@pytest.mark.parametrize(
    ("document", "target"),
    [
        (Document(), "demo"),
        (outgoing(OutgoingSection(tcp=False)), "demo"),
        (Document(feature=FeatureSection(env=EnvironmentSection(enabled=False))), "demo"),
        (Document(feature=FeatureSection(fs=FilesSection(mode="local"))), "demo"),
        (Document(target=TargetSection(namespace="shop")), "targetless"),
        (Document(kube_context="dev"), "targetless"),
        (Document(kubeconfig="/dev/null"), "targetless"),
        (Document(accept_invalid_certificates=True), "targetless"),
        (Document(agent=AgentSection(image="agent")), "targetless"),
        (Document(target=TargetSection(path="demo", namespace="shop")), "demo"),
        (Document(target=TargetSection(path="pod/web-0")), "pod/web-0"),
    ],
)
def test_target_without_a_path_is_in_the_cluster_if_one_is_named(document: Document, target: str) -> None:
    assert run_configuration(document).target == target


def test_every_field_of_the_files_is_one_of_their_configuration() -> None:
    patterns = {name: (re.compile(name),) for name in ("read_write", "read_only", "local", "not_found")}
    said = FilesSection(mode="write", mapping=((re.compile("a"), "b"),), **patterns)
    assert all(value is not None for value in attrs.asdict(said, recurse=False).values())
    document = Document(feature=FeatureSection(fs=said))
    files = document.run_configuration(("true",), connect_hold_s=0.3, delivery="auto", tree="copy", sudo=False).files
    assert files == FilesConfiguration(tree="copy", **attrs.asdict(said, recurse=False))


def test_cluster_and_agent_get_what_is_said() -> None:
    document = Document(
        target=TargetSection(path="deploy/web", namespace="shop"),
        agent=AgentSection(ephemeral=True, ttl=5, startup_timeout=2.5, communication_timeout=7.0, image="agent:1"),
        kubeconfig="/k",
        kube_context="dev",
        accept_invalid_certificates=True,
    )
    configuration = run_configuration(document)
    assert configuration.target == "deploy/web"
    assert configuration.cluster == ClusterConfiguration(
        kubeconfig="/k", context="dev", namespace="shop", accept_invalid_certificates=True
    )
    assert configuration.agent == AgentConfiguration(
        mode="ephemeral", ttl_s=5, startup_timeout_s=2.5, communication_timeout_s=7.0, image="agent:1"
    )


def test_every_field_of_the_agent_is_one_of_its_configuration() -> None:
    said = AgentSection(
        ephemeral=False,
        image="i",
        image_pull_policy="Always",
        image_pull_secrets=("s",),
        namespace="n",
        labels={"l": "1"},
        annotations={"a": "1"},
        tolerations=(),
        node_selector={"n": "1"},
        resources={},
        service_account="sa",
        priority_class="pc",
        ttl=0,
        startup_timeout=1.0,
        communication_timeout=1.0,
        privileged=True,
        disabled_capabilities=frozenset({"NET_RAW"}),
        disable_mesh_sidecar_injection=False,
        flush_connections=False,
        inject_headers=True,
    )
    assert all(value is not None for value in attrs.asdict(said).values())
    with pytest.raises(ValueError, match="a privileged agent has all capabilities"):
        Document(agent=said).agent_configuration()
    configuration = Document(agent=attrs.evolve(said, privileged=None)).agent_configuration()
    defaults = AgentConfiguration()
    unchanged = [
        field.name
        for field in attrs.fields(AgentConfiguration)
        if getattr(configuration, field.name) == getattr(defaults, field.name)
    ]
    assert unchanged == ["mode", "privileged"]
    assert Document(agent=AgentSection(privileged=True)).agent_configuration().privileged


@pytest.mark.parametrize("seconds", [0.0, -1.0, 2.0**31, float("inf"), float("nan")])
def test_timeouts_must_end(seconds: float) -> None:
    with pytest.raises(ValueError, match="startup_timeout_s"):
        Document(agent=AgentSection(startup_timeout=seconds)).agent_configuration()


def test_what_flags_say_goes_before_what_a_file_says() -> None:
    file = Document(
        target=TargetSection(path="deploy/web", namespace="shop"),
        agent=AgentSection(image="theirs", ephemeral=True),
        feature=FeatureSection(
            env=EnvironmentSection(include=("A",)),
            fs=FilesSection(mode="write", local=(re.compile("a"),), not_found=(re.compile("b"),)),
            network=NetworkSection(outgoing=OutgoingSection(tcp=False, unix_streams=(re.compile("a"),))),
        ),
        kube_context="prod",
    )
    flags = Document(
        target=TargetSection(namespace="test"),
        agent=AgentSection(image="ours"),
        feature=FeatureSection(
            fs=FilesSection(mode="read", not_found=(re.compile("c"),)),
            network=NetworkSection(outgoing=OutgoingSection(tcp=True, udp=False)),
        ),
    )
    both = merged(flags, file)
    assert both.target == TargetSection(path="deploy/web", namespace="test")
    assert both.agent == AgentSection(image="ours", ephemeral=True)
    assert both.feature.env == EnvironmentSection(include=("A",))
    assert both.feature.fs == FilesSection(mode="read", local=(re.compile("a"),), not_found=(re.compile("c"),))
    assert both.feature.network.outgoing == OutgoingSection(tcp=True, udp=False, unix_streams=(re.compile("a"),))
    assert both.kube_context == "prod"


@pytest.mark.parametrize(
    ("over", "under", "expected"),
    [
        (
            EnvironmentSection(exclude=("B",)),
            EnvironmentSection(include=("A",)),
            EnvironmentConfiguration(exclude=("B",)),
        ),
        (
            EnvironmentSection(include=("B",)),
            EnvironmentSection(enabled=False),
            EnvironmentConfiguration(include=("B",)),
        ),
        (
            EnvironmentSection(enabled=False),
            EnvironmentSection(include=("A",)),
            EnvironmentConfiguration(enabled=False),
        ),
        (EnvironmentSection(enabled=True), EnvironmentSection(exclude=("A",)), EnvironmentConfiguration()),
        (
            EnvironmentSection(env_file="b", unset=("B",)),
            EnvironmentSection(include=("A",), env_file="a", override={"A": "a"}),
            EnvironmentConfiguration(include=("A",), env_file="b", override={"A": "a"}, unset=("B",)),
        ),
    ],
)
def test_which_variables_are_taken_is_decided_by_one_source_alone(
    over: EnvironmentSection, under: EnvironmentSection, expected: EnvironmentConfiguration
) -> None:
    flags, file = (Document(feature=FeatureSection(env=section.decided())) for section in (over, under))
    assert run_configuration(merged(flags, file)).environment == expected


@pytest.mark.parametrize(("said", "hostname"), [(None, True), (True, True), (False, False)])
def test_host_name(said: bool | None, hostname: bool) -> None:
    assert run_configuration(Document(feature=FeatureSection(hostname=said))).hostname is hostname


def test_magic_is_done_unless_it_is_not_wanted() -> None:
    assert run_configuration(Document()).magic == MagicConfiguration(auto_mount=True, aws=True)
    said = Document(feature=FeatureSection(magic=MagicSection(aws=False)))
    assert run_configuration(said).magic == MagicConfiguration(auto_mount=True, aws=False)


def test_merging_with_nothing_changes_nothing() -> None:
    document = Document(target=TargetSection(path="x"), kube_context="y")
    assert merged(document, Document()) == document
    assert merged(Document(), document) == document


def incoming(document: Document) -> IncomingConfiguration:
    return run_configuration(document).incoming


def about_incoming(section: IncomingSection, **rest: Any) -> Document:
    return Document(feature=FeatureSection(network=NetworkSection(incoming=section)), **rest)


def test_incoming_traffic_is_mirrored_unless_there_is_no_target() -> None:
    assert incoming(Document()) == IncomingConfiguration(mode="mirror")
    assert incoming(Document(target=TargetSection(path="pod/web-0"))).mode == "mirror"
    assert incoming(Document(target=TargetSection(path="targetless"))).mode == "off"
    assert incoming(Document(target=TargetSection(namespace="shop"))).mode == "off"
    assert incoming(about_incoming(IncomingSection(mode="steal"))).mode == "steal"
    with pytest.raises(ValueError, match="nothing to steal without a target"):
        incoming(about_incoming(IncomingSection(mode="steal"), target=TargetSection(path="targetless")))


def test_every_field_about_incoming_is_one_of_its_configuration() -> None:
    said = IncomingSection(
        mode="steal",
        ports=frozenset({80}),
        ignore_localhost=True,
        port_mapping={8080: 80},
        listen_ports={80: 8081},
        http_filter=HttpFilter("{}"),
        all_pods=True,
    )
    assert [name for name, value in attrs.asdict(said, recurse=False).items() if value is None] == ["ignore_ports"]
    configuration = incoming(about_incoming(said, agent=AgentSection(flush_connections=False, inject_headers=True)))
    assert configuration == IncomingConfiguration(
        mode="steal",
        ports=frozenset({80}),
        ignore_localhost=True,
        port_mapping={8080: 80},
        listen_ports={80: 8081},
        http_filter=HttpFilter("{}"),
        flush_connections=False,
        inject_headers=True,
        all_pods=True,
    )
    with pytest.raises(ValueError, match="chosen or ignored, not both"):
        incoming(about_incoming(attrs.evolve(said, ignore_ports=frozenset({1}))))


def test_what_the_agent_is_told_with_each_port_names_no_cluster() -> None:
    document = Document(agent=AgentSection(flush_connections=False))
    assert run_configuration(document).target == "demo"
    assert document.agent_configuration() == AgentConfiguration()
