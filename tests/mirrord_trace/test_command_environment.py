"""What a real process finds in its environment, for each field of `feature.env`."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PRINT = [sys.executable, "-c", "import json, os; print(json.dumps(dict(os.environ)))"]
LOCAL = {"GREETING": "local", "LOCAL_ONLY": "local", "REGION": "mine"}
NAMES = ("GREETING", "POD_NAME", "LOCAL_ONLY", "REGION", "ADDED")
UNTOUCHED = {
    "GREETING": "Hello from the demo pod",
    "POD_NAME": "web-demo-0",
    "LOCAL_ONLY": "local",
    "REGION": "mine",
    "ADDED": None,
}


def environment_of_a_process(directory: Path, said: Any, *flags: str) -> dict[str, str | None]:
    (directory / "c.json").write_text(json.dumps({"feature": {"env": said}}))
    done = subprocess.run(
        [sys.executable, "-m", "mirrord_trace", "run", "-q", "-f", str(directory / "c.json"), *flags, "--", *PRINT],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **LOCAL},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return {name: found.get(name) for name in NAMES}


@pytest.mark.parametrize(
    ("said", "changed"),
    [
        (True, {}),
        (False, {"GREETING": "local", "POD_NAME": None}),
        ({"include": "POD_*"}, {"GREETING": "local"}),
        ({"exclude": ["GREET*"]}, {"GREETING": "local"}),
        ({"env_file": "FILE"}, {"GREETING": "of the file", "ADDED": "local/x"}),
        ({"mapping": {"^GREE": "mapped", "^LOCAL": "mapped"}}, {"GREETING": "mapped"}),
        ({"override": {"GREETING": "mine", "ADDED": ""}}, {"GREETING": "mine", "ADDED": ""}),
        ({"unset": ["region", "greeting"]}, {"REGION": None, "GREETING": None}),
        (
            {"env_file": "FILE", "mapping": {"ADDED": "mapped"}, "override": {"GREETING": "mine"}, "unset": "POD_*"},
            {"GREETING": "mine", "ADDED": "mapped", "POD_NAME": None},
        ),
    ],
    ids=str,
)
def test_field(tmp_path: Path, said: Any, changed: dict[str, str | None]) -> None:
    (tmp_path / ".env").write_text("GREETING='of the file' # a comment\nexport ADDED=${LOCAL_ONLY}/x\n")
    if isinstance(said, dict) and "env_file" in said:
        said = {**said, "env_file": str(tmp_path / ".env")}
    assert environment_of_a_process(tmp_path, said) == {**UNTOUCHED, **changed}


def test_flags_keep_what_a_file_says_of_other_fields(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("GREETING=of the file\n")
    said = {"include": "GREETING", "override": {"ADDED": "mine"}}
    found = environment_of_a_process(tmp_path, said, "-x", "POD_NAME", "--env-file", str(tmp_path / ".env"))
    assert found == {**UNTOUCHED, "GREETING": "of the file", "ADDED": "mine"}
