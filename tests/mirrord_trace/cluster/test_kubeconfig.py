from pathlib import Path
from typing import Any

import pytest
import yaml

from mirrord_trace.cluster.kubeconfig import decoded, find, usual_files
from mirrord_trace.errors import Failure, UsageFailure


def write(path: Path, **fields: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config"} | fields))
    return path


def context(name: str, cluster: str = "c", user: str = "u", **more: str) -> dict[str, Any]:
    return {"name": name, "context": {"cluster": cluster, "user": user} | more}


def cluster(name: str = "c", **fields: str) -> dict[str, Any]:
    return {"name": name, "cluster": {"server": f"https://{name}.example"} | fields}


def user(name: str = "u", **fields: Any) -> dict[str, Any]:
    return {"name": name, "user": fields}


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return write(
        tmp_path / "config",
        **{"current-context": "dev"},
        contexts=[context("dev", namespace="shop"), context("prod", "c2")],
        clusters=[cluster(), cluster("c2")],
        users=[user(token="t")],
    )


def test_the_current_context_is_chosen(whole: Path) -> None:
    chosen = find(str(whole), None, {})
    assert chosen is not None
    assert (chosen.name, chosen.namespace, chosen.user_name) == ("dev", "shop", "u")
    assert chosen.cluster["server"] == "https://c.example"
    assert chosen.user == {"token": "t"}


def test_another_context_is_chosen(whole: Path) -> None:
    chosen = find(str(whole), "prod", {})
    assert chosen is not None
    assert chosen.cluster["server"] == "https://c2.example"
    assert chosen.namespace is None


def test_of_several_files_the_first_wins_and_missing_ones_count_as_none(tmp_path: Path) -> None:
    first = write(tmp_path / "first", clusters=[cluster(), cluster("other")], contexts=None)
    second = write(
        tmp_path / "second",
        **{"current-context": "dev"},
        contexts=[context("dev")],
        clusters=[{"name": "c", "cluster": {"server": "https://hidden.example"}}],
        users=[user(token="second")],
    )
    third = write(tmp_path / "third", **{"current-context": "prod"}, users=[user(token="third")])
    (tmp_path / "empty").touch()
    named = ":".join(map(str, (tmp_path / "missing", tmp_path / "empty", first, second, third)))
    chosen = find(None, None, {"KUBECONFIG": named})
    assert chosen is not None
    assert chosen.name == "dev"
    assert chosen.cluster["server"] == "https://c.example"
    assert chosen.user == {"token": "second"}
    assert chosen.file == second


def test_names_of_files_are_relative_to_the_file_that_has_them(tmp_path: Path) -> None:
    clusters = write(tmp_path / "one" / "config", clusters=[cluster(**{"certificate-authority": "ca.crt"})])
    users = write(
        tmp_path / "two" / "config",
        **{"current-context": "dev"},
        contexts=[context("dev")],
        users=[user(**{"client-certificate": "/etc/tls.crt", "client-key": "tls.key", "tokenFile": "../token"})],
    )
    chosen = find(None, None, {"KUBECONFIG": f"{clusters}:{users}"})
    assert chosen is not None
    assert chosen.cluster["certificate-authority"] == str(tmp_path / "one/ca.crt")
    assert chosen.user["client-certificate"] == "/etc/tls.crt"
    assert chosen.user["client-key"] == str(tmp_path / "two/tls.key")
    assert chosen.user["tokenFile"] == str(tmp_path / "two/../token")


def test_without_any_kubeconfig(tmp_path: Path) -> None:
    assert find(None, None, {"KUBECONFIG": str(tmp_path / "missing")}) is None


def test_the_usual_file() -> None:
    assert usual_files({}) == [Path("~/.kube/config").expanduser()]
    assert usual_files({"KUBECONFIG": ""}) == [Path("~/.kube/config").expanduser()]


def test_a_context_without_a_user_is_fine(tmp_path: Path) -> None:
    path = write(
        tmp_path / "config",
        **{"current-context": "dev"},
        contexts=[{"name": "dev", "context": {"cluster": "c"}}],
        clusters=[cluster()],
    )
    chosen = find(str(path), None, {})
    assert chosen is not None
    assert chosen.user == {}


def test_an_unknown_context_names_the_nearest_and_all(whole: Path) -> None:
    with pytest.raises(UsageFailure) as failure:
        find(str(whole), "prd", {})
    assert failure.value.message == f"there is no context 'prd' in {whole}"
    assert failure.value.advice == "Did you mean prod? There are: dev, prod."


@pytest.mark.parametrize(
    ("fields", "message", "advice"),
    [
        (
            {"contexts": [context("dev")]},
            "no context is chosen in {path}",
            "Choose one with --context. There are: dev.",
        ),
        ({}, "no context is chosen in {path}", None),
        (
            {"current-context": "gone", "contexts": [context("dev")]},
            "there is no context 'gone' in {path}, though it is the current one",
            "There are: dev.",
        ),
        (
            {"current-context": "dev", "contexts": [context("dev")]},
            "the context dev in {path} is of the cluster 'c', which is not there",
            None,
        ),
        (
            {"current-context": "dev", "contexts": [context("dev")], "clusters": [cluster()]},
            "the context dev in {path} is for the user 'u', who is not there",
            None,
        ),
        (
            {"current-context": "dev", "contexts": {"dev": {}}},
            "the kubeconfig {path} is not valid: 'contexts' must be a list of entries with names",
            None,
        ),
        (
            {"current-context": "dev", "contexts": [{"name": "dev", "context": "c"}]},
            "the kubeconfig {path} is not valid: the context dev has no fields",
            None,
        ),
    ],
)
def test_a_kubeconfig_of_no_use(tmp_path: Path, fields: Any, message: str, advice: str | None) -> None:
    path = write(tmp_path / "config", **fields)
    with pytest.raises(Failure) as failure:
        find(str(path), None, {})
    assert (failure.value.message, failure.value.advice) == (message.format(path=path), advice)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", "the kubeconfig {path} is empty"),
        (b"- a\n", "{path} is not a kubeconfig: it holds no fields"),
        (b"a: [", "the kubeconfig {path} is not valid YAML: while parsing a flow"),
        (b"a: \xff\xff", "the kubeconfig {path} is not valid YAML: "),
        (b"a: 2020-13-01", "the kubeconfig {path} is not valid YAML: month must be in 1..12"),
    ],
)
def test_a_file_that_is_no_kubeconfig(tmp_path: Path, contents: bytes, message: str) -> None:
    path = tmp_path / "config"
    path.write_bytes(contents)
    with pytest.raises(Failure) as failure:
        find(str(path), None, {})
    assert failure.value.message.startswith(message.format(path=path))


def test_a_file_that_is_not_there_or_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageFailure, match=r"there is no kubeconfig .*/missing$"):
        find(str(tmp_path / "missing"), None, {})
    with pytest.raises(Failure, match=r"cannot read the kubeconfig .*: Is a directory$"):
        find(str(tmp_path), None, {})


def test_a_home_of_nobody() -> None:
    for asked, environment in (("~nosuch/config", {}), (None, {"KUBECONFIG": "/a:~nosuch/config"})):
        with pytest.raises(Failure) as failure:
            find(asked, None, environment)
        assert failure.value.message == "cannot tell where the kubeconfig ~nosuch/config is: ~nosuch has no home"


def test_data_that_is_not_base64() -> None:
    with pytest.raises(Failure, match=r"^client-key-data of the user u is not base64: "):
        list(decoded({"client-key-data": "a"}, "user", "the user u"))


def test_saving_keeps_the_files_mode_and_where_a_link_leads(whole: Path, tmp_path: Path) -> None:
    whole.chmod(0o600)
    link = tmp_path / "link"
    link.symlink_to(whole)
    chosen = find(str(link), None, {})
    assert chosen is not None
    chosen.document["users"][0]["user"]["token"] = "fresh"
    chosen.save()
    assert link.is_symlink()
    assert whole.stat().st_mode & 0o777 == 0o600
    again = find(str(whole), None, {})
    assert again is not None
    assert again.user == {"token": "fresh"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config", "link"]
