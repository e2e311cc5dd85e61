"""Variables of the environment as a source of configuration: what they say, and what is said of them."""

import pytest

from mirrord_trace.config.document import Document
from mirrord_trace.config.resolution import set_fields
from mirrord_trace.config.variables import VARIABLES, unknown_variables, variables_source
from mirrord_trace.errors import UsageFailure


@pytest.mark.parametrize(
    ("name", "text", "path", "value"),
    [
        ("IMPERSONATED_TARGET", "pod/web-0", "target.path", "pod/web-0"),
        ("ACCEPT_INVALID_CERTIFICATES", "1", "accept_invalid_certificates", True),
        ("EPHEMERAL_CONTAINER", "False", "agent.ephemeral", False),
        ("AGENT_TTL", "0", "agent.ttl", 0),
        ("AGENT_STARTUP_TIMEOUT", "5", "agent.startup_timeout", 5.0),
        ("AGENT_TCP_STEAL_TRAFFIC", "true", "feature.network.incoming.mode", "steal"),
        ("AGENT_TCP_STEAL_TRAFFIC", "0", "feature.network.incoming.mode", "mirror"),
        ("AGENT_TCP_STEAL_TRAFFIC", "off", "feature.network.incoming.mode", "off"),
    ],
)
def test_a_variable_sets_its_field(name: str, text: str, path: str, value: object) -> None:
    source = variables_source({f"MIRRORD_{name}": text})
    assert dict(set_fields(source.document)) == {path: value}
    assert source.names == {path: f"MIRRORD_{name}"}


def test_semicolons_separate() -> None:
    source = variables_source(
        {
            "MIRRORD_FILE_LOCAL_PATTERN": "^/a;^/b",
            "MIRRORD_OVERRIDE_ENV_VARS_INCLUDE": "A_*;B",
            "MIRRORD_HTTP_HEADER_FILTER": "^x-me: a;b",
            "MIRRORD_HTTP_FILTER_PORTS": "80;8080",
        }
    )
    fields = dict(set_fields(source.document))
    assert [pattern.pattern for pattern in fields["feature.fs.local"]] == ["^/a", "^/b"]
    assert fields["feature.env.include"] == ("A_*", "B")
    assert source.names["feature.env.exclude"] == "MIRRORD_OVERRIDE_ENV_VARS_INCLUDE"
    assert fields["feature.network.incoming.http_filter"].ports == {80, 8080}


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"AGENT_TTL": "x"}, "MIRRORD_AGENT_TTL: expected a whole number, but found 'x'"),
        ({"AGENT_TTL": "9" * 5000}, "MIRRORD_AGENT_TTL: expected a whole number"),
        ({"AGENT_TTL": "9999999999"}, "MIRRORD_AGENT_TTL: expected a whole number of seconds, at most"),
        ({"TCP_OUTGOING": "yes"}, "MIRRORD_TCP_OUTGOING: expected true, false, 1 or 0, but found 'yes'"),
        ({"FILE_MODE": "raed"}, "MIRRORD_FILE_MODE: expected one of read, write"),
        ({"FILE_LOCAL_PATTERN": "a;("}, "MIRRORD_FILE_LOCAL_PATTERN: "),
        ({"FILE_LOCAL_PATTERN": ";"}, "MIRRORD_FILE_LOCAL_PATTERN: expected a list"),
        ({"IMPERSONATED_TARGET": ""}, "MIRRORD_IMPERSONATED_TARGET: expected a text, but it is empty"),
        ({"REMOTE_DNS": "false"}, "MIRRORD_REMOTE_DNS: mirrord-trace does not have this yet"),
        ({"HTTP_FILTER_PORTS": "80"}, "MIRRORD_HTTP_FILTER_PORTS: "),
        (
            {"OVERRIDE_ENV_VARS_INCLUDE": "A", "OVERRIDE_ENV_VARS_EXCLUDE": "B"},
            "MIRRORD_OVERRIDE_ENV_VARS_INCLUDE, MIRRORD_OVERRIDE_ENV_VARS_EXCLUDE: environment variables can be",
        ),
    ],
)
def test_faults_name_the_variable(environment: dict[str, str], said: str) -> None:
    with pytest.raises(UsageFailure) as raised:
        variables_source({f"MIRRORD_{name}": text for name, text in environment.items()})
    assert raised.value.message.startswith(said)


def test_all_faults_are_told_together() -> None:
    with pytest.raises(UsageFailure, match=r"MIRRORD_AGENT_TTL: .*\nMIRRORD_TCP_OUTGOING: "):
        variables_source({"MIRRORD_TCP_OUTGOING": "x", "MIRRORD_AGENT_TTL": "x"})


def test_unknown_variables_are_told_with_the_nearest_that_is_known() -> None:
    [line] = unknown_variables({"MIRRORD_AGENT_TLT": "3", "MIRRORD_CONFIG_FILE": "x", "HOME": "/"})
    assert line == "the variable MIRRORD_AGENT_TLT means nothing to mirrord-trace; did you mean 'MIRRORD_AGENT_TTL'?"


def test_no_two_variables_stand_for_one_field() -> None:
    assert len({variable.path for variable in VARIABLES.values()}) == len(VARIABLES)


def test_what_is_passed_over_is_told_by_the_name_of_the_variable() -> None:
    told: list[str] = []
    assert variables_source({"MIRRORD_ENABLE_IPV6": "false"}, told.append).document == Document()
    assert told == ["MIRRORD_ENABLE_IPV6: IPv6 is always served"]
    variables_source({"MIRRORD_ENABLE_IPV6": "true"}, told.append)
    assert len(told) == 1
