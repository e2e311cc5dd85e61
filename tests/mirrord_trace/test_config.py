from typing import get_args

import pytest

from mirrord_trace.config import Capability, EnvironmentConfiguration, RunConfiguration
from mirrord_trace.targets.workloads.agent_pod import CAPABILITIES


def test_defaults_are_those_of_mirrord() -> None:
    configuration = RunConfiguration(command=("true",))
    assert configuration.target == "demo"
    assert configuration.outgoing_tcp
    assert configuration.outgoing_udp
    assert not configuration.ignore_localhost
    assert configuration.unix_streams == ()
    assert configuration.environment.enabled
    assert configuration.files.mode == "read"
    assert configuration.files.tree == "auto"


def test_command_must_not_be_empty() -> None:
    with pytest.raises(ValueError, match="command"):
        RunConfiguration(command=())


@pytest.mark.parametrize("seconds", [-1.0, float("nan")])
def test_hold_must_be_a_duration(seconds: float) -> None:
    with pytest.raises(ValueError, match="connect_hold_s"):
        RunConfiguration(command=("true",), connect_hold_s=seconds)


def test_include_and_exclude_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="not both"):
        EnvironmentConfiguration(include=("A",), exclude=("B",))


def test_capabilities_that_can_be_disabled_are_those_that_agents_have() -> None:
    assert set(get_args(Capability)) == set(CAPABILITIES)
