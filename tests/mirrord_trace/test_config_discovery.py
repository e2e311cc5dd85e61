"""Which file of a working directory is the configuration."""

from pathlib import Path

import pytest

from mirrord_trace.config.discovery import found_file
from mirrord_trace.errors import UsageFailure


@pytest.mark.parametrize("name", ["mirrord.json", "mirrord.toml", "mirrord.yaml", "mirrord.yml", "steal.mirrord.json"])
def test_the_only_file_is_found(tmp_path: Path, name: str) -> None:
    (tmp_path / ".mirrord").mkdir()
    (tmp_path / ".mirrord" / "notes.json").touch()
    (tmp_path / ".mirrord" / name).touch()
    assert found_file(tmp_path) == tmp_path / ".mirrord" / name


def test_nothing_is_found_where_there_is_no_file(tmp_path: Path) -> None:
    assert found_file(tmp_path) is None
    (tmp_path / ".mirrord").mkdir()
    assert found_file(tmp_path) is None


def test_several_files_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / ".mirrord").mkdir()
    for name in ("mirrord.json", "mirrord.toml"):
        (tmp_path / ".mirrord" / name).touch()
    with pytest.raises(UsageFailure, match=r"mirrord\.json, mirrord\.toml"):
        found_file(tmp_path)
