"""Who the server takes us for, and by which way and certificate we got to it."""

import base64
import contextlib
import copy
import json
import os
import pwd
import ssl
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
import yaml
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from hypothesis import given
from hypothesis import strategies as st

from mirrord_trace.cluster import credentials
from mirrord_trace.cluster.access import impersonation
from mirrord_trace.cluster.api import Object, WebSocketRequest, open_api
from mirrord_trace.cluster.credentials import find_credentials
from mirrord_trace.cluster.kubeconfig import find
from mirrord_trace.cluster.resources import POD_PORT_FORWARD, PODS
from mirrord_trace.config import ClusterConfiguration
from mirrord_trace.errors import Failure, UsageFailure
from tests.mirrord_trace.cluster.servers import Handler, Proxy, Server, kubeconfig

V1 = "client.authentication.k8s.io/v1"


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)


def who(handler: Handler) -> None:
    """Answers with what proves who asks."""
    names = str(handler.connection.getpeercert()) if isinstance(handler.connection, ssl.SSLSocket) else ""
    told = {name: value for name, value in handler.headers.items() if name.startswith(("Impersonate", "authorization"))}
    handler.reply(200, {"kind": "Pod", "certificate": names, "headers": {k.lower(): v for k, v in told.items()}})


def asked(configuration: ClusterConfiguration, times: int = 1) -> Object:
    """What the server says to the last of some requests."""

    async def main() -> Object:
        with trio.fail_after(20):
            async with open_api(configuration) as api:
                answers = [await api.get(PODS, "shop", "web") for _ in range(times)]
                return answers[-1]

    return trio.run(main)


def failing(configuration: ClusterConfiguration) -> Failure:
    with pytest.raises(Failure) as failure:
        asked(configuration)
    return failure.value


def pem(certificate: trustme.LeafCert) -> tuple[str, str]:
    return "".join(blob.bytes().decode() for blob in certificate.cert_chain_pems), (
        certificate.private_key_pem.bytes().decode()
    )


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("user", "authorization"),
    [
        ({}, None),
        ({"token": "t"}, "Bearer t"),
        ({"tokenFile": "token"}, "Bearer from-file"),
        ({"username": "u", "password": "p"}, f"Basic {encoded('u:p')}"),
    ],
)
def test_tokens_and_passwords(tmp_path: Path, user: dict[str, str], authorization: str | None) -> None:
    (tmp_path / "token").write_text("from-file\n")
    with Server(tmp_path, who) as server:
        assert asked(server.configuration(user))["headers"].get("authorization") == authorization


@pytest.mark.parametrize("as_data", [False, True])
def test_client_certificates_leave_no_files(tmp_path: Path, as_data: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    with Server(tmp_path, who) as server:
        certificate, key = pem(server.authority.issue_cert("dev.example", common_name="dev"))
        (tmp_path / "tls.crt").write_text(certificate)
        (tmp_path / "tls.key").write_text(key)
        user = {"client-certificate": "tls.crt", "client-key": "tls.key"}
        cluster: dict[str, str | None] = {"certificate-authority": "ca.crt"}
        if as_data:
            user = {"client-certificate-data": encoded(certificate), "client-key-data": encoded(key)}
            authority = server.authority.cert_pem.bytes().decode()
            cluster = {"certificate-authority-data": encoded(authority), "certificate-authority": None}
        assert "dev" in asked(server.configuration(user, cluster))["certificate"]
    assert list(scratch.iterdir()) == []


def plugin(output: dict[str, Any], **more: Any) -> dict[str, Any]:
    text = json.dumps({"apiVersion": V1, "kind": "ExecCredential", "status": output})
    return {"exec": {"apiVersion": V1, "command": "printf", "args": ["%s", text]} | more}


def test_an_exec_plugins_token_and_certificate(tmp_path: Path) -> None:
    with Server(tmp_path, who) as server:
        certificate, key = pem(server.authority.issue_cert("dev.example", common_name="dev"))
        user = plugin({"token": "t", "clientCertificateData": certificate, "clientKeyData": key})
        answer = asked(server.configuration(user))
        assert answer["headers"]["authorization"] == "Bearer t"
        assert "dev" in answer["certificate"]


COUNTING_PLUGIN = f"""
import json, pathlib, sys
V1 = {V1!r}
runs = pathlib.Path(sys.argv[1])
number = len(runs.read_text()) if runs.exists() else 0
runs.write_text("x" * (number + 1))
status = dict({{"token": "token-" + str(number)}}, **json.loads(sys.argv[2]))
print(json.dumps(dict(apiVersion=V1, kind="ExecCredential", status=status)))
"""


def counting_plugin(directory: Path, **status: str) -> dict[str, Any]:
    """A plugin whose tokens are token-0, token-1, …"""
    arguments = ["-c", COUNTING_PLUGIN, str(directory / "runs"), json.dumps(status)]
    return {"exec": {"apiVersion": V1, "command": sys.executable, "args": arguments}}


def test_a_plugin_runs_once_for_many_requests(tmp_path: Path) -> None:
    with Server(tmp_path, who) as server:
        answer = asked(server.configuration(counting_plugin(tmp_path)), times=3)
        assert answer["headers"]["authorization"] == "Bearer token-0"


def test_a_plugin_runs_again_when_its_credentials_have_expired(tmp_path: Path) -> None:
    with Server(tmp_path, who) as server:
        user = counting_plugin(tmp_path, expirationTimestamp="2020-01-01T00:00:00Z")
        assert asked(server.configuration(user), times=2)["headers"]["authorization"] == "Bearer token-2"


def test_a_plugin_runs_again_when_the_server_refuses_its_token(tmp_path: Path) -> None:
    def picky(handler: Handler) -> None:
        if handler.headers["authorization"] == "Bearer token-0":
            handler.refuse(401, "Unauthorized", "Unauthorized")
        else:
            who(handler)

    with Server(tmp_path, picky) as server:
        user = counting_plugin(tmp_path)
        assert asked(server.configuration(user), times=2)["headers"]["authorization"] == "Bearer token-1"
        assert len(server.seen) == 3


def test_a_certificate_of_a_plugin_is_renewed(tmp_path: Path) -> None:
    """The client certificate belongs to the connection: the next request needs a new one."""

    def picky(handler: Handler) -> None:
        assert isinstance(handler.connection, ssl.SSLSocket)
        if "first" in str(handler.connection.getpeercert()):
            handler.refuse(401, "Unauthorized", "Unauthorized")
        else:
            who(handler)

    with Server(tmp_path, picky) as server:
        for name in ("first", "second"):
            certificate, key = pem(server.authority.issue_cert("dev.example", common_name=name))
            status = {"clientCertificateData": certificate, "clientKeyData": key}
            (tmp_path / name).write_text(json.dumps({"apiVersion": V1, "kind": "ExecCredential", "status": status}))
        script = f"cd {tmp_path}; if [ -e asked ]; then cat second; else touch asked; cat first; fi"
        user = {"exec": {"apiVersion": V1, "command": "sh", "args": ["-c", script]}}
        assert "second" in asked(server.configuration(user))["certificate"]


def test_a_token_file_is_read_again_when_the_server_refuses_the_token(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old")

    def rotating(handler: Handler) -> None:
        if handler.headers["authorization"] == "Bearer old":
            token.write_text("new")
            handler.refuse(401, "Unauthorized", "Unauthorized")
        else:
            who(handler)

    with Server(tmp_path, rotating) as server:
        answer = asked(server.configuration({"tokenFile": "token"}))
        assert answer["headers"]["authorization"] == "Bearer new"


def test_a_kubeconfig_that_was_written_anew_is_taken_up(tmp_path: Path) -> None:
    def logged_in_meanwhile(handler: Handler) -> None:
        if handler.headers["authorization"] == "Bearer old":
            server.configuration({"token": "new"})
            handler.refuse(401, "Unauthorized", "Unauthorized")
        else:
            who(handler)

    with Server(tmp_path, logged_in_meanwhile) as server:
        assert asked(server.configuration({"token": "old"}))["headers"]["authorization"] == "Bearer new"


def jwt(expires: float) -> str:
    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    # The official client wants the middle part's length to be right.
    return f"{part({'alg': 'none'})}.{part({'exp': int(expires)})}.{part({'s': 'x'})}"


def test_an_oidc_token_is_refreshed_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = jwt(time.time() + 3600)

    def provider_and_api(handler: Handler) -> None:
        if handler.path == "/.well-known/openid-configuration":
            handler.reply(200, {"token_endpoint": f"{server.url}/token"})
        elif handler.path == "/token":
            answer = {"id_token": fresh, "refresh_token": "next", "access_token": "a", "token_type": "bearer"}
            handler.reply(200, answer, Content_Type="application/json")
        else:
            who(handler)

    with Server(tmp_path, provider_and_api) as server:
        described = {
            "idp-issuer-url": server.url,
            "idp-certificate-authority-data": encoded(server.authority.cert_pem.bytes().decode()),
            "client-id": "id",
            "client-secret": "secret",
            "id-token": jwt(time.time() - 3600),
            "refresh-token": "first",
        }
        user = {"auth-provider": {"name": "oidc", "config": described}}
        configuration = server.configuration(user)
        assert asked(configuration)["headers"]["authorization"] == f"Bearer {fresh}"
        assert configuration.kubeconfig is not None
        kept = yaml.safe_load(Path(configuration.kubeconfig).read_text())["users"][0]["user"]["auth-provider"]["config"]
        assert (kept["id-token"], kept["refresh-token"]) == (fresh, "next")


def test_impersonation(tmp_path: Path) -> None:
    with Server(tmp_path, who) as server:
        user = {"token": "t", "as": "jane", "as-groups": ["a"], "as-user-extra": {"example.com/scope": ["x"]}}
        assert asked(server.configuration(user))["headers"] == {
            "authorization": "Bearer t",
            "impersonate-user": "jane",
            "impersonate-group": "a",
            "impersonate-extra-example.com%2fscope": "x",
        }


def test_each_group_and_value_has_a_header_of_its_own(tmp_path: Path) -> None:
    user = {"as": "j", "as-uid": "7", "as-groups": ["a", "b"], "as-user-extra": {"s": ["x", "y"]}}
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(kubeconfig(user, {})))
    context = find(str(file), None, {})
    assert context is not None
    assert list(impersonation(context)) == [
        ("Impersonate-User", "j"),
        ("Impersonate-Uid", "7"),
        ("Impersonate-Group", "a"),
        ("Impersonate-Group", "b"),
        ("Impersonate-Extra-s", "x"),
        ("Impersonate-Extra-s", "y"),
    ]


def in_a_pod(server: Server, directory: Path, monkeypatch: pytest.MonkeyPatch, token: str = "service-account") -> None:
    (directory / "token").write_text(token)
    (directory / "ca.crt").write_bytes(server.authority.cert_pem.bytes())
    (directory / "namespace").write_text("shop")
    monkeypatch.setattr(credentials, "SERVICE_ACCOUNT", directory)
    monkeypatch.setenv("KUBECONFIG", str(directory / "missing"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.port))


def web_socket(configuration: ClusterConfiguration) -> WebSocketRequest:
    async def main() -> WebSocketRequest:
        async with open_api(configuration) as api:
            return await api.websocket(POD_PORT_FORWARD, "shop", "web", {"ports": "8080"})

    return trio.run(main)


def test_a_scheme_in_capitals_means_the_same(tmp_path: Path) -> None:
    with Server(tmp_path, who) as server:
        configuration = server.configuration({"token": "t"}, {"server": server.url.replace("https", "HTTPS")})
        assert asked(configuration)["headers"]["authorization"] == "Bearer t"
        request = web_socket(configuration)
        assert request.uri.startswith(f"wss://127.0.0.1:{server.port}/")
        assert request.tls is not None


def test_in_a_pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(tmp_path, who) as server:
        in_a_pod(server, tmp_path, monkeypatch)
        assert asked(ClusterConfiguration())["headers"]["authorization"] == "bearer service-account"
        assert find_credentials(ClusterConfiguration()).namespace == "shop"
        assert find_credentials(ClusterConfiguration(namespace="other")).namespace == "other"


def test_in_a_pod_there_are_no_contexts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(tmp_path, who) as server:
        in_a_pod(server, tmp_path, monkeypatch)
        with pytest.raises(UsageFailure, match="there is no context 'dev': without a kubeconfig there are none"):
            find_credentials(ClusterConfiguration(context="dev"))


def test_in_a_pod_with_an_empty_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(tmp_path, who) as server:
        in_a_pod(server, tmp_path, monkeypatch, token="")
        assert failing(ClusterConfiguration()).message == (
            "cannot use the pod's service account: Token file exists but empty."
        )


def test_no_cluster_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path}/a:{tmp_path}/b")
    failure = failing(ClusterConfiguration())
    assert failure.message == (
        f"no cluster is configured: there is no kubeconfig ({tmp_path}/a, {tmp_path}/b), and this is not a pod"
    )
    assert failure.advice == "Name a kubeconfig with --kubeconfig or $KUBECONFIG."


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a container's user that is not in passwd(5)."""

    def nobody(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)


@pytest.mark.usefixtures("homeless")
def test_in_a_pod_without_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(tmp_path, who) as server:
        in_a_pod(server, tmp_path, monkeypatch)
        monkeypatch.delenv("KUBECONFIG")
        assert asked(ClusterConfiguration())["headers"]["authorization"] == "bearer service-account"


@pytest.mark.usefixtures("homeless")
def test_no_cluster_and_no_home() -> None:
    assert failing(ClusterConfiguration()).message == (
        "no cluster is configured: there is no kubeconfig (nor a home to look in), and this is not a pod"
    )


@pytest.mark.parametrize(
    ("user", "cluster", "message"),
    [
        (
            {"auth-provider": {"name": "azure"}},
            {},
            "the kubeconfig's user dev uses the auth-provider azure, which kubectl gave up as well",
        ),
        ({}, {"server": None}, "cannot use the context here of {file}: the cluster has no server"),
        (
            {},
            {"server": "127.0.0.1:6443"},
            "cannot use the context here of {file}: the cluster's server '127.0.0.1:6443' is no URL of http, https",
        ),
        (
            {},
            {"certificate-authority": "gone.crt"},
            "cannot use the context here of {file}: File does not exist: {directory}/gone.crt",
        ),
        (
            {},
            {"certificate-authority-data": "Zm9v"},
            "cannot use the context here of {file}: the authority's certificate cannot be used: ",
        ),
        (
            {"client-certificate-data": "Zm9v", "client-key-data": "Zm9v"},
            {},
            "cannot use the context here of {file}: the client certificate or its key cannot be used: ",
        ),
        ({"client-key-data": "a"}, {}, "client-key-data of the user dev is not base64: "),
        ({"exec": "aws"}, {}, "the kubeconfig {file} is not valid: exec of the user dev must be a section"),
        (
            {"auth-provider": {"name": "oidc", "config": {}}},
            {},
            "cannot use the context here of {file}: ",
        ),
        (
            {},
            {"proxy-url": "http://[::1"},
            "cannot use the context here of {file}: the proxy 'http://[::1' is no URL",
        ),
        (
            {},
            {"proxy-url": "ftp://me:s3cret@h:1"},
            "cannot use the context here of {file}: the proxy 'ftp://h:1' is no URL",
        ),
        (
            {},
            {"proxy-url": "http://me:s3/c@r@h:port/x"},
            "cannot use the context here of {file}: the proxy 'http://h:port/x' is no URL",
        ),
        (
            {},
            {"proxy-url": "me:s3cret@h:1"},
            "cannot use the context here of {file}: the proxy 'h:1' is no URL",
        ),
        (
            {},
            {"server": "https://me:s3cret@h:0"},
            "cannot use the context here of {file}: the cluster's server 'https://h:0' is no URL",
        ),
        (
            {"as-user-extra": {"scope": "x"}},
            {"insecure-skip-tls-verify": True},
            "cannot use the context here of {file}: as-user-extra of the user dev must hold lists",
        ),
        (
            {"token": "two\nlines"},
            {"insecure-skip-tls-verify": True},
            "cannot use the context here of {file}: what it has for the header authorization cannot stand in one",
        ),
        (
            {},
            {"proxy-url": "socks5://proxy.example"},
            "the proxy socks5://proxy.example needs PySocks",
        ),
    ],
)
def test_a_kubeconfig_of_no_use(tmp_path: Path, user: Any, cluster: Any, message: str) -> None:
    file = tmp_path / "kubeconfig"
    described = {"server": "https://127.0.0.1:1"} | cluster
    file.write_text(yaml.safe_dump(kubeconfig(user, {k: v for k, v in described.items() if v is not None})))
    failure = failing(ClusterConfiguration(kubeconfig=str(file)))
    assert failure.message.startswith(message.format(file=file, directory=tmp_path))
    assert "\n" not in failure.message


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """All places in a document."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in items:
        yield from paths(below, (*path, key))


EVERYTHING = kubeconfig(
    {
        "token": "t",
        "username": "u",
        "password": "p",
        "as": "jane",
        "as-groups": ["a"],
        "as-user-extra": {"scope": ["x"]},
        "auth-provider": {"name": "oidc", "config": {"id-token": "t", "idp-issuer-url": "u", "refresh-token": "t"}},
    },
    {
        "server": "https://127.0.0.1:1",
        "insecure-skip-tls-verify": True,
        "tls-server-name": "n",
        "proxy-url": "http://127.0.0.1:1",
        "extensions": [{"name": "n", "extension": {}}],
    },
)
ANYTHING: st.SearchStrategy[Any] = st.sampled_from(
    [None, 0, 7, 1.5, True, "", "text", [], [1], ["a"], {}, {"a": 1}, [{}], "https://[::1"]
)


@given(
    st.sampled_from(sorted(paths(EVERYTHING), key=str)), ANYTHING, st.sets(st.sampled_from(["token", "auth-provider"]))
)
def test_whatever_stands_in_a_kubeconfig_there_is_no_traceback(
    tmp_path_factory: pytest.TempPathFactory, path: tuple[Any, ...], value: Any, absent: set[str]
) -> None:
    document = copy.deepcopy(EVERYTHING)
    for name in absent:
        del document["users"][0]["user"][name]
    place: Any = document
    with contextlib.suppress(KeyError, IndexError, TypeError):
        for key in path[:-1]:
            place = place[key]
        if path:
            place[path[-1]] = value
        else:
            document = value
    file = tmp_path_factory.getbasetemp() / "anything"
    file.write_text(yaml.safe_dump(document))

    async def main() -> None:
        async with open_api(ClusterConfiguration(kubeconfig=str(file))) as api:
            await api.websocket(POD_PORT_FORWARD, "shop", "web", {})

    with contextlib.suppress(Failure):
        trio.run(main)


def test_an_encrypted_key_is_an_error_and_no_question(tmp_path: Path) -> None:
    with Server(tmp_path, who) as server:
        certificate, key = pem(server.authority.issue_cert("dev.example"))
        (tmp_path / "tls.crt").write_text(certificate)
        (tmp_path / "tls.key").write_bytes(
            load_pem_private_key(key.encode(), None).private_bytes(
                Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password")
            )
        )
        user = {"client-certificate": "tls.crt", "client-key": "tls.key"}
        assert "the client certificate or its key cannot be used" in failing(server.configuration(user)).message


def test_the_namespace_is_the_contexts(tmp_path: Path) -> None:
    file = tmp_path / "kubeconfig"
    document = kubeconfig({}, {"server": "https://127.0.0.1:1"})
    file.write_text(yaml.safe_dump(document))
    assert find_credentials(ClusterConfiguration(kubeconfig=str(file))).namespace == "default"
    document["contexts"][0]["context"]["namespace"] = "shop"
    file.write_text(yaml.safe_dump(document))
    assert find_credentials(ClusterConfiguration(kubeconfig=str(file))).namespace == "shop"
    assert find_credentials(ClusterConfiguration(kubeconfig=str(file), namespace="other")).namespace == "other"


def test_a_servers_own_path_is_kept(tmp_path: Path) -> None:
    with Server(tmp_path, who) as server:
        asked(server.configuration(cluster={"server": f"{server.url}/k8s/clusters/c-1/"}))
        assert [seen.path for seen in server.seen] == ["/k8s/clusters/c-1/api/v1/namespaces/shop/pods/web"]


def test_plain_http(tmp_path: Path) -> None:
    with Server(tmp_path, who, tls=False) as server:
        assert asked(server.configuration({"token": "t"}))["headers"]["authorization"] == "Bearer t"


@pytest.mark.parametrize(
    ("cluster", "more"),
    [
        ({"tls-server-name": "api.example"}, {}),
        ({"insecure-skip-tls-verify": True}, {}),
        ({}, {"accept_invalid_certificates": True}),
    ],
)
def test_a_certificate_for_another_name_is_taken_where_that_is_said(tmp_path: Path, cluster: Any, more: Any) -> None:
    with Server(tmp_path, who, names=("api.example",)) as server:
        assert asked(server.configuration(cluster=cluster, **more))["kind"] == "Pod"


@pytest.mark.parametrize(
    ("proxy_url", "environment"),
    [("http://{proxy}", {}), (None, {"HTTPS_PROXY": "http://{proxy}"})],
)
def test_through_a_proxy(
    tmp_path: Path, proxy_url: str | None, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Server(tmp_path, who, names=("api.example",)) as server, Proxy() as proxy:
        where = f"user:p%40ss@127.0.0.1:{proxy.port}"
        for name, value in environment.items():
            monkeypatch.setenv(name, value.format(proxy=where))
        cluster = {"server": f"https://api.example:{server.port}"}
        if proxy_url:
            cluster["proxy-url"] = proxy_url.format(proxy=where)
        assert asked(server.configuration(cluster=cluster))["kind"] == "Pod"
        (head,) = proxy.seen
        assert head.startswith(f"CONNECT api.example:{server.port} ")
        assert f"proxy-authorization: basic {encoded('user:p@ss')}".lower() in head.lower()


def test_a_web_socket_has_the_same_credentials(tmp_path: Path) -> None:
    with Server(tmp_path, who) as server:
        cluster = {"tls-server-name": "api.example", "proxy-url": "http://proxy.example:3128"}
        configuration = server.configuration({"token": "t", "as": "jane"}, cluster)

        request = web_socket(configuration)
        assert request.uri == f"wss://127.0.0.1:{server.port}/api/v1/namespaces/shop/pods/web/portforward?ports=8080"
        assert request.server_hostname == "api.example"
        assert request.proxy == "http://proxy.example:3128"
        assert dict(request.headers) | {"User-Agent": ""} == {
            "User-Agent": "",
            "authorization": "Bearer t",
            "Impersonate-User": "jane",
        }
        assert request.tls is not None
        assert request.tls.verify_mode == ssl.CERT_REQUIRED
        assert not request.tls.verify_flags & ssl.VERIFY_X509_STRICT  # clusters' authorities often lack what it wants


@pytest.mark.parametrize("interactive", [True, False])
def test_the_terminal_is_lent_to_a_plugin_only_until_a_request_succeeded(tmp_path: Path, interactive: bool) -> None:
    """After that it may be the user's process's."""
    seen: list[bool] = []

    async def main() -> None:
        async with open_api(server.configuration({"token": "t"}), interactive=interactive) as api:
            seen.append(api.credentials.interactive)
            await api.get(PODS, "shop", "web")
            seen.append(api.credentials.interactive)

    with Server(tmp_path, who) as server:
        trio.run(main)
        assert seen == [interactive, False]


def open_files() -> Iterator[str]:
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            yield os.readlink(descriptor)


def test_keys_are_in_no_open_file(tmp_path: Path) -> None:
    with Server(tmp_path, who) as server:
        certificate, key = pem(server.authority.issue_cert("dev.example"))
        user = {"client-certificate-data": encoded(certificate), "client-key-data": encoded(key)}

        async def main() -> list[str]:
            async with open_api(server.configuration(user)):
                return [name for name in open_files() if "kubeconfig" in name]

        assert trio.run(main) == []
