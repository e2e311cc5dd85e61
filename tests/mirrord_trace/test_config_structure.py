"""Which values a configuration file may hold, and what is said of others."""

import math
import re
from datetime import date
from typing import Any

import attrs
import pytest

from mirrord_trace import __version__
from mirrord_trace.config import HttpFilter, IncomingMode
from mirrord_trace.config.document import (
    AgentSection,
    Document,
    EnvironmentSection,
    FeatureSection,
    FilesSection,
    IncomingSection,
    NetworkSection,
    OutgoingSection,
    TargetSection,
)
from mirrord_trace.config.fields import ABSENT, passed_over
from mirrord_trace.config.patterns import path_pattern
from mirrord_trace.config.structure import Faults, structured


def at(path: str, value: Any) -> dict[str, Any]:
    """What a file holds that says this one thing."""
    for name in reversed(path.split(".")):
        value = {name: value}
    assert isinstance(value, dict)
    return value


def faults(content: dict[str, Any]) -> list[str]:
    with pytest.raises(Faults) as raised:
        structured(content)
    return list(raised.value.args)


def fault(path: str, value: Any) -> str:
    [found] = faults(at(path, value))
    return str(found)


@pytest.mark.parametrize(
    ("value", "section"),
    [
        ("targetless", TargetSection(path="targetless")),
        ("deploy/web/container/app", TargetSection(path="deploy/web/container/app")),
        ({"path": "pod/web-0", "namespace": "shop"}, TargetSection(path="pod/web-0", namespace="shop")),
        ({"namespace": "shop"}, TargetSection(namespace="shop")),
        ({"path": None}, TargetSection()),
        (None, TargetSection()),
        ({"path": {"pod": "web-0", "container": "app"}}, TargetSection(path="pod/web-0/container/app")),
        ({"path": {"cron_job": "report"}}, TargetSection(path="cronjob/report")),
        ({"path": {"labels": {"app": "web", "tier": "front"}}}, TargetSection(path="label/app=web,tier=front")),
    ],
)
def test_target(value: Any, section: TargetSection) -> None:
    assert structured({"target": value}) == Document(target=section)


AGENT = {
    "namespace": ("agents", "agents"),
    "image": ("registry.example/agent:2", "registry.example/agent:2"),
    "image_pull_policy": ("Always", "Always"),
    "image_pull_secrets": ([{"name": "a"}, {"name": "b"}], ("a", "b")),
    "labels": ({"team": "web"}, {"team": "web"}),
    "annotations": ({"a/b": ""}, {"a/b": ""}),
    "tolerations": ([{"key": "x", "operator": "Exists"}], ({"key": "x", "operator": "Exists"},)),
    "node_selector": ({"disk": "ssd"}, {"disk": "ssd"}),
    "resources": (
        {"requests": {"cpu": 1, "memory": "1Mi"}, "limits": {"cpu": 0.5}},
        {"requests": {"cpu": "1", "memory": "1Mi"}, "limits": {"cpu": "0.5"}},
    ),
    "service_account": ("agent", "agent"),
    "priority_class": ("low", "low"),
    "ttl": (0, 0),
    "startup_timeout": (5, 5.0),
    "communication_timeout": (2.5, 2.5),
    "ephemeral": (True, True),
    "privileged": (False, False),
    "disabled_capabilities": (["NET_RAW"], frozenset({"NET_RAW"})),
    "disable_mesh_sidecar_injection": (False, False),
    "flush_connections": (False, False),
    "inject_headers": (True, True),
}


def test_every_field_of_the_agent_is_tried() -> None:
    assert set(AGENT) == {field.name for field in attrs.fields(AgentSection)}


@pytest.mark.parametrize("name", AGENT)
def test_agent(name: str) -> None:
    written, expected = AGENT[name]
    assert getattr(structured({"agent": {name: written}}).agent, name) == expected


@pytest.mark.parametrize(
    ("written", "image"),
    [
        ({"registry": "registry.example/agent", "tag": "7"}, "registry.example/agent:7"),
        ({"registry": "registry.example/agent"}, f"registry.example/agent:{__version__}"),
        ({"tag": "7"}, "mirrord-trace-agent:7"),
    ],
)
def test_image_in_parts(written: dict[str, str], image: str) -> None:
    assert structured({"agent": {"image": written}}).agent.image == image


@pytest.mark.parametrize(
    ("written", "environment"),
    [
        (True, EnvironmentSection(enabled=True, include=(), exclude=())),
        (False, EnvironmentSection(enabled=False, include=(), exclude=())),
        ({"include": "A;B_*"}, EnvironmentSection(enabled=True, include=("A", "B_*"), exclude=())),
        ({"exclude": ["A", "B"]}, EnvironmentSection(enabled=True, include=(), exclude=("A", "B"))),
        ({"include": None}, EnvironmentSection()),
        ({"env_file": "~/.env"}, EnvironmentSection(env_file="~/.env")),
        ({"mapping": {".+_(?<x>T)$": ""}}, EnvironmentSection(mapping=((re.compile(".+_(?P<x>T)$"), ""),))),
        ({"override": {"A": "", "b c": "d=e"}}, EnvironmentSection(override={"A": "", "b c": "d=e"})),
        ({"unset": "AWS_*;B"}, EnvironmentSection(unset=("AWS_*", "B"))),
        ({"load_from_process": False}, EnvironmentSection()),
    ],
)
def test_environment(written: Any, environment: EnvironmentSection) -> None:
    assert structured(at("feature.env", written)) == Document(feature=FeatureSection(env=environment))


@pytest.mark.parametrize(
    ("written", "files"),
    [
        ("read", FilesSection(mode="read")),
        ("localwithoverrides", FilesSection(mode="localwithoverrides")),
        (True, FilesSection(mode="read")),
        (False, FilesSection(mode="local")),
        (None, FilesSection()),
        ({"mode": "write"}, FilesSection(mode="write")),
        ({"read_write": "^/data/"}, FilesSection(read_write=(path_pattern("^/data/"),))),
        ({"read_only": ["a", "b"]}, FilesSection(read_only=(path_pattern("a"), path_pattern("b")))),
        ({"local": "a;b"}, FilesSection(local=(path_pattern("a;b"),))),
        ({"not_found": []}, FilesSection(not_found=())),
        ({"readonly_file_buffer": 0}, FilesSection()),
        (
            {"mapping": {"^/b/(?<rest>.*)": "/c/${rest}/$1", "^/a": ""}},
            FilesSection(mapping=((path_pattern("^/b/(?P<rest>.*)"), r"/c/\g<rest>/\g<1>"), (path_pattern("^/a"), ""))),
        ),
    ],
)
def test_files(written: Any, files: FilesSection) -> None:
    assert structured(at("feature.fs", written)) == Document(feature=FeatureSection(fs=files))


def test_patterns_on_paths_are_searched_without_regard_to_case() -> None:
    read_only = structured(at("feature.fs.read_only", "^/Data/")).feature.fs.read_only
    assert read_only is not None
    assert read_only[0].search("/dATA/x")


@pytest.mark.parametrize(
    ("path", "written", "outgoing"),
    [
        ("feature.network.outgoing", False, OutgoingSection(tcp=False, udp=False)),
        ("feature.network.outgoing", {"udp": False}, OutgoingSection(udp=False)),
        ("feature.network.outgoing.ignore_localhost", True, OutgoingSection(ignore_localhost=True)),
        ("feature.network.outgoing.unix_streams", "/run/.+", OutgoingSection(unix_streams=(re.compile("/run/.+"),))),
        (
            "feature.network.outgoing.unix_streams",
            ["a", "b"],
            OutgoingSection(unix_streams=tuple(map(re.compile, "ab"))),
        ),
    ],
)
def test_outgoing(path: str, written: Any, outgoing: OutgoingSection) -> None:
    assert structured(at(path, written)) == Document(feature=FeatureSection(network=NetworkSection(outgoing=outgoing)))


@pytest.mark.parametrize(
    "section",
    ["target", "agent", "feature", "feature.fs", "feature.network", "feature.network.outgoing", "kubeconfig"],
)
def test_null_says_nothing(section: str) -> None:
    assert structured(at(section, None)) == Document()


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("agent.imag", "x", "unknown field; did you mean 'image'?"),
        ("agnet", {}, "unknown field; did you mean 'agent'?"),
        ("namespace", "x", "unknown field; did you mean 'target.namespace'?"),
        ("agent.kube_context", "x", "unknown field; did you mean 'kube_context'?"),
        ("target.xyz", 1, "unknown field; known: path, namespace"),
        ("target", 1, "expected an object, but found the number 1"),
        ("target.path", 1, "expected a text, but found the number 1; put it into quotes"),
        ("target.path", "", "expected a text, but it is empty"),
        ("target.path", {"pod": "a", "job": "b"}, "expected a text such as 'deployment/web', or an object"),
        ("target.path", {"pod": "a", "contaner": "b"}, "unknown field 'contaner'; did you mean 'container'?"),
        ("target.path", {"labels": {"app": 1}}, "expected a text, but found the number 1"),
        ("agent", [], "expected an object, but found a list"),
        ("agent.ephemeral", "yes", "expected true or false, but found 'yes'"),
        ("agent.ttl", 1.5, "expected a whole number of seconds, at most 2147483647, but found the number 1.5"),
        ("agent.ttl", -1, "expected a whole number of seconds, at most 2147483647, but found the number -1"),
        ("agent.ttl", 2**31, "but found the number 2147483648"),
        ("agent.startup_timeout", 2**31, "expected a number of seconds above 0 and at most 2147483647, but"),
        ("agent.communication_timeout", 1e300, "expected a number of seconds above 0 and at most 2147483647, but"),
        ("agent.startup_timeout", 0, "but found the number 0"),
        ("agent.startup_timeout", True, "but found true"),
        ("agent.communication_timeout", float("inf"), "expected a number of seconds above 0"),
        ("agent.image", {"tagg": "1"}, "unknown field 'tagg'; did you mean 'tag'?"),
        ("agent.image_pull_policy", "always", "expected one of Always, IfNotPresent, Never, but found 'always'; did"),
        ("agent.labels", "a=b", "expected an object, but found 'a=b'"),
        ("agent.labels", {1: "b"}, "expected names that are texts, but found the number 1; put it into quotes"),
        ("agent.disabled_capabilities", "NET_RAW", "expected a list, but found 'NET_RAW'"),
        ("agent.resources", {"requests": [1]}, "expected an object, but found a list"),
        (
            "feature.env",
            {"include": "A", "exclude": "B"},
            "can be included or excluded, not both",
        ),
        ("feature.env.include", "", "feature.env.include: expected names of variables, but found '' without any"),
        ("feature.env.include", ";;", "feature.env.include: expected names of variables, but found ';;' without any"),
        ("feature.env.exclude", [], "feature.env.exclude: expected names of variables, but found a list without any"),
        ("feature.env", "none", "expected an object, but found 'none'"),
        ("feature.env", {"enabled": False, "include": "A"}, "cannot be chosen where none are taken"),
        ("feature.env.env_file", "", "expected a text, but it is empty"),
        ("feature.env.mapping", ["A"], "expected an object of regular expressions and values, but found a list"),
        ("feature.env.mapping", {"A(": "b"}, "'A(' is not a regular expression: missing )"),
        ("feature.env.mapping", {"": "b"}, "an empty regular expression would find every name"),
        ("feature.env.mapping", {"A": 1}, "'A': expected a text, but found the number 1; put it into quotes"),
        ("feature.env.override", "A=b", "expected an object of variables and values, but found 'A=b'"),
        ("feature.env.override", {"A": 1}, "A: expected a text, but found the number 1; put it into quotes"),
        ("feature.env.override", {"A=B": "c"}, "'A=B' is no name of a variable"),
        ("feature.env.unset", [], "expected names of variables, but found a list without any"),
        (
            "feature.fs",
            "raed",
            "feature.fs.mode: expected one of read, write, local, localwithoverrides, but found 'raed'",
        ),
        ("feature.fs", 1, "expected an object, but found the number 1"),
        ("feature.fs.mode", True, "expected one of read, write, local, localwithoverrides, but found true"),
        ("feature.fs.readwrite", "x", "unknown field; did you mean 'read_write'?"),
        ("feature.fs.local", "", "expected a text, but it is empty"),
        ("feature.fs.local", {"a": "b"}, "expected a list, but found an object"),
        ("feature.fs.read_only", "a(b", "'a(b' is not a regular expression: missing ), unterminated subpattern at pos"),
        ("feature.fs.mapping", "a=b", "expected an object of regular expressions and replacements, but found 'a=b'"),
        ("feature.fs.mapping", {"(": "b"}, "'(' is not a regular expression"),
        ("feature.fs.mapping", {"a": 1}, "'a': expected a text, but found the number 1"),
        ("feature.fs.mapping", {"(a)": "$2"}, "names the group '2'"),
        ("accept_invalid_certificates", 1, "expected true or false, but found the number 1"),
    ],
)
def test_fault_names_field_and_what_was_expected(path: str, value: Any, said: str) -> None:
    message = fault(path, value)
    assert message.startswith(path)
    assert said in message


@pytest.mark.parametrize(
    "path",
    [
        *("target", "target.path", "target.namespace", "kubeconfig", "kube_context", "agent.image", "agent.namespace"),
        *("agent.service_account", "feature.env.include", "feature.network.outgoing.unix_streams"),
        *("feature.fs.local", "feature.fs.read_only"),
    ],
)
@pytest.mark.parametrize("letter", ["\0", "\ud800"])
def test_text_that_nothing_can_carry(path: str, letter: str) -> None:
    message = fault(path, f"a{letter}b")
    assert message.startswith(path)
    assert f"has {letter!a} in it" in message


def test_text_may_have_any_letter() -> None:
    assert structured({"kubeconfig": "\u00e9\U0001f600\ue000"}).kubeconfig == "\u00e9\U0001f600\ue000"


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("agent.labels", {"a/b": 1}, "agent.labels['a/b']: expected a text, but found the number 1"),
        ("agent.tolerations", [{}, "x"], "agent.tolerations[1]: expected an object, but found 'x'"),
        (
            "agent.tolerations",
            [{"value": date(2024, 1, 2)}],
            "agent.tolerations[0]: value: expected a text, a number, true or false, but found 2024-01-02 (a date)",
        ),
        ("agent.tolerations", [{"tolerationSeconds": math.nan}], "agent.tolerations[0]: tolerationSeconds: expected"),
        ("agent.tolerations", [{"a": [{"b": math.inf}]}], "agent.tolerations[0]: a: expected"),
        ("agent.tolerations", [{"a": 1 << 20_000}], "agent.tolerations[0]: a: expected"),
        ("agent.tolerations", [{"a": {1: "b"}}], "agent.tolerations[0]: a: expected names that are texts"),
        ("agent.tolerations", [{"key": "\ud800"}], r"agent.tolerations[0]: key: expected a text, but '\ud800' has"),
        ("agent.tolerations", [{"k\0": "x"}], r"agent.tolerations[0]: expected a text, but 'k\x00' has '\x00' in it"),
        ("agent.image_pull_secrets", [{"nam": "x"}], "agent.image_pull_secrets[0]: unknown field 'nam'; did you mean"),
        ("agent.disabled_capabilities", ["SYS_TIME"], "agent.disabled_capabilities[0]: expected one of NET_ADMIN, "),
        ("agent.resources", {"limit": {}}, "agent.resources['limit']: expected one of requests, limits"),
        ("agent.resources", {"limits": {"cpu": math.nan}}, "agent.resources['limits']['cpu']: expected a quantity"),
        ("agent.resources", {"limits": {"cpu": "\0"}}, "agent.resources['limits']['cpu']: expected a text, but"),
        ("agent.resources", {"limits": {"cpu": True}}, "agent.resources['limits']['cpu']: expected a quantity"),
        ("feature.network.outgoing.unix_streams", ["a", "("], "unix_streams[1]: '(' is not a regular expression"),
        ("feature.network.outgoing.unix_streams", ["a{99999999999}"], "unix_streams[0]: 'a{99999999999}' is not a"),
        ("feature.fs.not_found", ["a", "(?<b>x)["], "feature.fs.not_found[1]: '(?<b>x)[' is not a regular expression"),
    ],
)
def test_fault_inside_a_field_names_the_place(path: str, value: Any, said: str) -> None:
    assert said in fault(path, value)


def test_all_faults_are_told_together() -> None:
    found = faults({"agent": {"ttl": -1, "imag": "x"}, "targt": "pod/x", "kubeconfig": 1})
    assert sorted(text.partition(":")[0] for text in found) == ["agent.imag", "agent.ttl", "kubeconfig", "targt"]


@pytest.mark.parametrize("path", [path for path, absent in ABSENT.items() if absent.is_refused])
def test_field_that_we_could_have_and_have_not_is_an_error(path: str) -> None:
    assert fault(path, "something") == f"{path}: {ABSENT[path].reason}"


@pytest.mark.parametrize("path", [path for path, absent in ABSENT.items() if not absent.is_refused])
@pytest.mark.parametrize("value", ["something", {"enabled": True}, ["something"], 17])
def test_field_that_means_nothing_here_is_told(path: str, value: Any) -> None:
    content = at(path, value)
    assert structured(content) == Document()
    told = list(passed_over(content))
    assert told == ([] if ABSENT[path].harmless is None else [f"{path}: {ABSENT[path].reason}"])


def test_reasons_are_one_line_that_says_something() -> None:
    for absent in ABSENT.values():
        assert absent.reason
        assert "\n" not in absent.reason


@pytest.mark.parametrize(("value", "tcp", "mode"), [(True, True, "mirror"), (False, False, "off")])
def test_network_as_a_whole(value: bool, tcp: bool, mode: IncomingMode) -> None:
    network = structured({"feature": {"network": value}}).feature.network
    assert network == NetworkSection(outgoing=OutgoingSection(tcp=tcp, udp=tcp), incoming=IncomingSection(mode=mode))


@pytest.mark.parametrize(
    ("value", "section"),
    [
        ("steal", IncomingSection(mode="steal")),
        ("off", IncomingSection(mode="off")),
        (True, IncomingSection(mode="mirror")),
        (False, IncomingSection(mode="off")),
        (None, IncomingSection()),
        ({"mode": "steal", "ports": [80, 8080]}, IncomingSection(mode="steal", ports=frozenset({80, 8080}))),
        ({"ports": 80}, IncomingSection(ports=frozenset({80}))),
        ({"ignore_ports": [9090]}, IncomingSection(ignore_ports=frozenset({9090}))),
        ({"ignore_localhost": True}, IncomingSection(ignore_localhost=True)),
        ({"port_mapping": [[8080, 80], [8443, 443]]}, IncomingSection(port_mapping={8080: 80, 8443: 443})),
        ({"listen_ports": [[80, 8111]]}, IncomingSection(listen_ports={80: 8111})),
        ({"all_pods": True}, IncomingSection(all_pods=True)),
        ({"on_concurrent_steal": "continue"}, IncomingSection()),
        (
            {"http_filter": {"header_filter": "^x-me: yes", "ports": [80]}},
            IncomingSection(http_filter=HttpFilter('{"header":"^x-me: yes"}', frozenset({80}))),
        ),
        (
            {"http_filter": {"path_filter": "^/é", "method_filter": None}},
            IncomingSection(http_filter=HttpFilter('{"path":"^/é"}')),
        ),
        ({"http_filter": {"method_filter": "GET"}}, IncomingSection(http_filter=HttpFilter('{"method":"GET"}'))),
        (
            {"http_filter": {"body_filter": {"body": "json", "query": "$.id", "matches": "^7"}}},
            IncomingSection(http_filter=HttpFilter('{"body":"json","query":"$.id","matches":"^7"}')),
        ),
        (
            {"http_filter": {"all_of": [{"header": "a"}, {"any_of": [{"path": "b"}, {"method": "c"}]}]}},
            IncomingSection(
                http_filter=HttpFilter('{"all_of":[{"header":"a"},{"any_of":[{"path":"b"},{"method":"c"}]}]}')
            ),
        ),
    ],
)
def test_incoming(value: Any, section: IncomingSection) -> None:
    assert structured({"feature": {"network": {"incoming": value}}}).feature.network.incoming == section


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("mode", "stea", "expected one of mirror, steal, off, but found 'stea'; did you mean 'steal'?"),
        ("ports", [0], "expected a port from 1 to 65535, but found the number 0"),
        ("ports", ["80"], "expected a port from 1 to 65535, but found '80'"),
        ("ports", [True], "expected a port from 1 to 65535, but found true"),
        ("ignore_ports", [65536], "expected a port from 1 to 65535, but found the number 65536"),
        ("port_mapping", {"80": 81}, "expected a list, but found an object"),
        ("port_mapping", [[80]], "expected pairs of ports such as [8080, 80], but found a list"),
        ("port_mapping", [80], "expected pairs of ports such as [8080, 80], but found the number 80"),
        ("listen_ports", [[80, 81], [80, 82]], "port 80 is paired with 81 and with 82"),
        ("http_filter", {}, "expected exactly one of header_filter, path_filter, method_filter, body_filter, all_of"),
        ("http_filter", {"header_filter": "a", "path_filter": "b"}, "but found header_filter and path_filter"),
        ("http_filter", {"headers_filter": "a"}, "unknown field 'headers_filter'; did you mean 'header_filter'?"),
        ("http_filter", {"header_filter_jq": "."}, "mirrord-trace has no jq"),
        ("http_filter", {"header_filter": ""}, "header_filter: expected a text, but it is empty"),
        ("http_filter", {"header_filter": "a" * 13000}, "at most 12288 can be taken"),
        ("http_filter", {"body_filter": {"body": "xml"}}, "body_filter: body: expected 'json', but found 'xml'"),
        ("http_filter", {"body_filter": {"body": "json"}}, "body_filter: expected a text, but found nothing"),
        ("http_filter", {"all_of": []}, "all_of: expected one filter or more, but found an empty list"),
        ("http_filter", {"all_of": [{"header": "a", "path": "b"}]}, "but found header and path"),
        ("http_filter", {"any_of": [{"headr": "a"}]}, "but found 'headr'"),
        ("http_filter", {"header_filter": "a", "ports": ["x"]}, "expected a port"),
        ("mod", "steal", "unknown field; did you mean 'mode'?"),
    ],
)
def test_incoming_that_cannot_be_meant(path: str, value: Any, said: str) -> None:
    assert said in fault(f"feature.network.incoming.{path}", value)


@pytest.mark.parametrize("path", ABSENT)
def test_field_that_we_lack_may_ask_for_nothing(path: str) -> None:
    harmless = ABSENT[path].harmless
    for value in (None, *((0, 128000) if harmless is None else harmless)):
        assert structured(at(path, value)) == Document()
        assert list(passed_over(at(path, value))) == []


def test_usual_file_of_mirrord_is_taken() -> None:
    content = {
        "$schema": "https://example.com/mirrord-schema.json",
        "target": {"path": "deployment/web", "namespace": "shop"},
        "feature": {
            "copy_target": {"enabled": False},
            "env": True,
            "fs": {"mode": "write", "read_only": ".+\\.yaml", "readonly_file_buffer": 64000},
            "network": {"incoming": "off", "outgoing": True, "dns": True},
        },
        "operator": False,
        "telemetry": False,
    }
    assert structured(content).target == TargetSection(path="deployment/web", namespace="shop")
