"""Configuration files, by how they are written."""

import json
from pathlib import Path

import pytest

from mirrord_trace.config.document import AgentSection, Document, TargetSection
from mirrord_trace.config.reading import read_document
from mirrord_trace.errors import UsageFailure

DOCUMENT = Document(target=TargetSection(path="pod/web-0", namespace="shop"), agent=AgentSection(ttl=3))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.json", '{"target": {"path": "pod/web-0", "namespace": "shop"}, "agent": {"ttl": 3}}'),
        ("c.toml", 'agent.ttl = 3\n[target]\npath = "pod/web-0"\nnamespace = "shop"\n'),
        ("c.yaml", "target:\n  path: pod/web-0\n  namespace: shop\nagent: {ttl: 3}\n"),
        ("c.YML", "{target: {path: pod/web-0, namespace: shop}, agent: {ttl: 3}}"),
    ],
)
def test_file_is_read_as_its_name_says(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    assert read_document(path) == DOCUMENT


@pytest.mark.parametrize(
    ("name", "text"), [("c.yaml", ""), ("c.yaml", "# nothing\n"), ("c.toml", ""), ("c.json", "{}")]
)
def test_empty_file_says_nothing(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    assert read_document(path) == Document()


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("c.json", '{"target": ', "line 1, column 12: Expecting value"),
        ("c.json", "", "line 1, column 1"),
        ("c.json", "[" * 100_000, "nested too deeply"),
        ("c.json", "[]", "expected fields such as `target` and `agent`, but found a list"),
        ("c.toml", "target = \n", "line 1"),
        ("c.yaml", "target: [a\nb: c", "line 2, column 2: expected ',' or ']'"),
        ("c.yaml", "target: !!python/name:os.system x", "line 1, column 9"),
        ("c.yaml", "target: \x01", "unacceptable character"),
        ("c.yaml", "just text", "but found 'just text'"),
        ("c.yaml", "on: x", "expected names that are texts, but found true; put it into quotes"),
        ("c.yaml", "target: '{{ nothing }}'", "line 1: in the template: 'nothing' is undefined"),
        ("c.yaml", "target: 2024-02-30", "a value cannot be read: day is out of range for month"),
        ("c.yaml", "target: !!int ''", "a value cannot be read: "),
        ("c.yaml", "target: !!bool x", "a value cannot be read: "),
        ("c.yaml", "target: !!timestamp x", "a value cannot be read: "),
        ("c.yaml", f"agent: {{ttl: {'9' * 5000}}}", "a value cannot be read: "),
        ("c.yaml", f"0x{'f' * 5000}", "but found a number of more than 30 digits"),
        ("c.yaml", f"agent: {{image: 0x{'f' * 5000}}}", "agent.image: expected a text, but found a number of more"),
        ("c.json", f'{{"agent": {{"ttl": {"9" * 5000}}}}}', "4300 digits"),
        ("c.toml", f"agent.ttl = {'9' * 5000}", "4300 digits"),
        ("c.yaml", "target: &a {path: *a}", "target.path: is a part of itself"),
        ("c.yaml", "agent: {tolerations: &a [*a]}", "agent.tolerations[0]: is a part of itself"),
        ("c.yaml", "&a {target: *a}", "target: is a part of itself"),
        ("c.json", '{"agent": {"tolerations": ' + "[" * 500 + "]" * 500 + "}}", "nested too deeply"),
        ("c.txt", "", "the name must end in one of .json, .toml, .yaml, .yml"),
        ("c", "", "the name must end in one of"),
    ],
)
def test_mistake_names_file_and_place(tmp_path: Path, name: str, text: str, said: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(UsageFailure) as raised:
        read_document(path)
    assert raised.value.message.startswith(f"{path}: ")
    assert said in raised.value.message
    assert "\n" not in raised.value.message


def test_yaml_may_say_the_same_twice(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("agent: {labels: &a {team: web}, annotations: *a}")
    assert read_document(path).agent == AgentSection(labels={"team": "web"}, annotations={"team": "web"})


def test_each_field_at_fault_has_a_line(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"agent": {"ttl": -1}, "targt": "x"}))
    with pytest.raises(UsageFailure) as raised:
        read_document(path)
    lines = raised.value.message.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"{path}: ") for line in lines)


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageFailure, match="No such file or directory"):
        read_document(tmp_path / "c.json")
    (tmp_path / "d.json").mkdir()
    with pytest.raises(UsageFailure, match="Is a directory"):
        read_document(tmp_path / "d.json")
    (tmp_path / "e.json").write_bytes(b'{"target": "\xff"}')
    with pytest.raises(UsageFailure, match=r"not text in UTF-8 \(byte 12\)"):
        read_document(tmp_path / "e.json")


def test_fields_that_are_passed_over_are_told(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text('{"operator": true, "telemetry": false, "feature": {"split_queues": {"q": {"queue_type": "SQS"}}}}')
    told: list[str] = []
    assert read_document(path, told.append) == Document()
    assert [line.partition(": there")[0].partition(": only")[0] for line in told] == [
        f"{path}: operator",
        f"{path}: feature.split_queues",
    ]
