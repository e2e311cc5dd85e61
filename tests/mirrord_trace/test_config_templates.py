"""Templates in configuration files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mirrord_trace.config.templates import rendered
from mirrord_trace.config.values import Fault

ENVIRONMENT = {"USER": "ann", "EMPTY": ""}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": {"b": 1}}\n', '{"a": {"b": 1}}\n'),
        ('x-{{ get_env(name="USER") }}\n', "x-ann\n"),
        ('{{ get_env(name="NOBODY", default="me") }}', "me"),
        ('{{ get_env(name="EMPTY", default="me") }}', ""),
        ('{{ get_env(name="USER") | upper }}', "ANN"),
        ('{% if get_env(name="USER") == "ann" %}steal{% else %}mirror{% endif %}', "steal"),
        ("a {# nothing #}b", "a b"),
    ],
)
def test_what_becomes_of_a_template(text: str, expected: str) -> None:
    assert rendered(text, ENVIRONMENT) == expected


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a\n{{ get_env(", "line 2: in the template: unexpected 'end of template'"),
        ('\n\n{{ get_env(name="NOBODY") }}', "line 3: in the template: the variable NOBODY is not set"),
        ("\n{{ unheard_of }}", "line 2: in the template: 'unheard_of' is undefined"),
        ("{{ 1 / 0 }}", "line 1: in the template: division by zero"),
        ("{{ get_env() }}", "line 1: in the template: "),
        ("{{ ''.__class__.__mro__ }}", "line 1: in the template: access to attribute '__class__'"),
        ("{% include 'x' %}", "line 1: in the template: no loader"),
    ],
)
def test_what_is_wrong_with_a_template(text: str, fault: str) -> None:
    with pytest.raises(Fault, match="^" + fault.replace("(", r"\(")):
        rendered(text, ENVIRONMENT)


def test_a_process_gets_what_a_template_became(tmp_path: Path) -> None:
    file = tmp_path / "mirrord.yaml"
    file.write_text('feature:\n  env:\n    override:\n      WHO: \'{{ get_env(name="ASKED", default="me") }}\'\n')
    command = [sys.executable, "-m", "mirrord_trace", "run", "-q", "-f", str(file), "--", "printenv", "WHO"]
    environment = {**os.environ, "ASKED": "ann"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert (done.stdout, done.stderr, done.returncode) == ("ann\n", "", 0)


def test_a_bad_template_is_a_mistake_of_the_users(tmp_path: Path) -> None:
    file = tmp_path / "mirrord.json"
    file.write_text('{\n"target": "{{ nothing }}"\n}')
    command = [sys.executable, "-m", "mirrord_trace", "run", "-f", str(file), "--", "true"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert f"{file}: line 2: in the template: 'nothing' is undefined" in done.stderr
