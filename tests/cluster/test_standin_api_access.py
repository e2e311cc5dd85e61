"""The stand-in's API server: who may do what, each way to prove who one is, and each way to the server."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
import urllib3
import yaml
from kubernetes import client as official
from kubernetes import config

from mirrord_trace.cluster.resources import JOBS, POD_LOGS, POD_PORT_FORWARD, PODS
from tests.cluster.plain_client import PlainClient
from tests.cluster.standin.cluster import Cluster
from tests.cluster.standin.kinds import NODES
from tests.cluster.standin.kubeconfigs import Auth
from tests.cluster.standin.listening import OTHER_NAME
from tests.cluster.standin.store import Object

WHO_AM_I = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
MAY_I = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


def who(client: PlainClient) -> str:
    name: str = client.create(WHO_AM_I, {}).json["status"]["userInfo"]["username"]
    return name


@pytest.mark.parametrize("auth", [auth for auth in get_args(Auth) if auth != "anonymous"])
def test_each_kind_of_credentials(api_server: Cluster, auth: Auth) -> None:
    kubeconfig = api_server.kubeconfig_for("dev", auth)
    assert who(PlainClient(kubeconfig)) == "dev"
    assert api_server.plugin_runs(kubeconfig) == auth.startswith("exec")
    assert api_server.requests[-1].user == "dev"


def test_nobody_in_particular(api_server: Cluster) -> None:
    client = PlainClient(api_server.kubeconfig_for("dev", "anonymous"))
    answer = client.get(PODS.path("shop"))
    who = 'User "system:anonymous" cannot list resource "pods" in API group "" in the namespace "shop"'
    assert (answer.status, answer.message) == (403, f"pods is forbidden: {who}")
    assert client.get("/version").json["gitVersion"] == "v1.36.0"


def test_a_token_that_is_not_known(api_server: Cluster) -> None:
    api_server.expire_tokens("dev")
    client = PlainClient(api_server.kubeconfig_for("dev"))
    api_server.expire_tokens("dev")
    answer = client.get(PODS.path("shop"))
    assert answer.status == 401
    assert answer.json == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "Unauthorized",
        "reason": "Unauthorized",
        "code": 401,
    }


@pytest.mark.parametrize("auth", ["exec", "token-file"])
def test_credentials_that_are_renewed(api_server: Cluster, auth: Auth) -> None:
    kubeconfig = api_server.kubeconfig_for("dev", auth)
    early = PlainClient(kubeconfig)
    api_server.expire_tokens("dev")
    assert early.create(WHO_AM_I, {}).status == 401
    assert who(PlainClient(kubeconfig)) == "dev"


def test_a_certificate_that_is_not_accepted(api_server: Cluster) -> None:
    client = PlainClient(api_server.kubeconfig_for("dev", "certificate"))
    api_server.expire_certificates("dev")
    assert client.create(WHO_AM_I, {}).status == 401


@pytest.mark.parametrize(
    ("trouble", "told"),
    [
        ({"trusted": False}, "certificate verify failed"),
        ({"certificate": "other-name"}, "IP address mismatch"),
        ({"certificate": "expired"}, "certificate has expired"),
    ],
)
def test_certificates_of_the_server_that_are_refused(api_server: Cluster, trouble: Object, told: str) -> None:
    client = PlainClient(api_server.kubeconfig_for("dev", **trouble))
    with pytest.raises(urllib3.exceptions.SSLError, match=told):
        client.get("/version")


def test_ways_around_a_certificate(api_server: Cluster) -> None:
    named = api_server.kubeconfig_for("dev", certificate="other-name", tls_server_name=OTHER_NAME)
    assert who(PlainClient(named)) == "dev"
    insecure = yaml.safe_load(api_server.kubeconfig_for("dev", certificate="expired", insecure=True).read_text())
    assert insecure["clusters"][0]["cluster"]["insecure-skip-tls-verify"] is True


def test_a_proxy_is_tunnelled_through(api_server: Cluster) -> None:
    url, proxy = api_server.proxy()
    client = PlainClient(api_server.kubeconfig_for("dev", proxy_url=url))
    client.configuration.proxy = url
    through = urllib3.ProxyManager(url, ca_certs=str(client.configuration.ssl_ca_cert))
    assert through.request("GET", f"{client.configuration.host}/version", retries=False).status == 200
    assert proxy.targets == [f"127.0.0.1:{api_server.port}"]
    through.clear()


def test_a_proxy_that_asks_for_a_password(api_server: Cluster) -> None:
    url, proxy = api_server.proxy(password="secret")
    authority = str(api_server.directory / "ca.crt")
    unnamed = urllib3.ProxyManager(url, ca_certs=authority)
    with pytest.raises(urllib3.exceptions.ProxyError, match="407"):
        unnamed.request("GET", f"https://127.0.0.1:{api_server.port}/version", retries=False)
    headers = urllib3.make_headers(proxy_basic_auth="developer:secret")
    named = urllib3.ProxyManager(url, ca_certs=authority, proxy_headers=headers)
    assert named.request("GET", f"https://127.0.0.1:{api_server.port}/version", retries=False).status == 200
    assert len(proxy.targets) == 1
    named.clear()


def test_a_pod_s_own_credentials(api_server: Cluster) -> None:
    account = "system:serviceaccount:shop:agent"
    place, environment = api_server.service_account(account, "shop")
    loader = config.incluster_config.InClusterConfigLoader(  # type: ignore[no-untyped-call]
        str(place / "token"), str(place / "ca.crt"), environ=environment
    )
    configuration = official.Configuration()
    loader.load_and_set(configuration)  # type: ignore[no-untyped-call]
    reviews = official.AuthenticationV1Api(official.ApiClient(configuration))
    answer = reviews.create_self_subject_review(official.V1SelfSubjectReview())
    assert answer.status is not None
    assert answer.status.user_info is not None
    assert answer.status.user_info.username == account
    assert (place / "namespace").read_text() == "shop"


def test_rights_are_given_and_taken(api_server: Cluster) -> None:
    client = PlainClient(api_server.kubeconfig_for("dev"))
    answer = client.create(JOBS.path("shop"), {})
    told = 'User "dev" cannot create resource "jobs" in API group "batch" in the namespace "shop"'
    assert (answer.status, answer.message) == (403, f"jobs.batch is forbidden: {told}")
    assert answer.json["details"] == {"group": "batch", "kind": "jobs"}
    told = 'User "dev" cannot list resource "nodes" in API group "" at the cluster scope'
    assert client.get(NODES.path(None)).message == f"nodes is forbidden: {told}"
    told = 'User "dev" cannot get resource "pods/log" in API group "" in the namespace "shop"'
    assert client.get(POD_LOGS.path("shop", "a")).message == f'pods "a" is forbidden: {told}'
    api_server.rbac.allow("dev", "list", PODS, "shop")
    assert client.get(PODS.path("shop")).status == 200
    assert client.get(PODS.path("elsewhere")).status == 403
    assert client.get(PODS.path(None)).status == 403
    assert client.get(PODS.path("shop"), watch="1").status == 403
    api_server.rbac.deny("dev", "list", PODS)
    assert client.get(PODS.path("shop")).status == 403
    api_server.rbac.deny("admin", "list", PODS)
    assert PlainClient(api_server.kubeconfig).get(PODS.path("shop")).status == 403


def test_rights_to_one_object_hold_for_a_list_of_it(api_server: Cluster) -> None:
    client = PlainClient(api_server.kubeconfig_for("dev"))
    api_server.rbac.allow("dev", ["get", "list"], PODS, "shop", name="a")
    assert client.get(PODS.path("shop", "a")).status == 404
    assert client.get(PODS.path("shop"), fieldSelector="metadata.name=a").status == 200
    assert client.get(PODS.path("shop"), fieldSelector="metadata.name=b").status == 403


def test_an_upgrade_needs_the_right_to_create(api_server: Cluster) -> None:
    client = PlainClient(api_server.kubeconfig_for("dev"))
    api_server.rbac.allow("dev", "get", POD_PORT_FORWARD, "shop")
    answer = client.get(POD_PORT_FORWARD.path("shop", "a"))
    assert (answer.status, answer.message) == (403, 'pods "a" is forbidden: ')
    api_server.rbac.allow("dev", "create", POD_PORT_FORWARD, "shop")
    assert client.get(POD_PORT_FORWARD.path("shop", "a")).message == 'pods "a" not found'


def test_roles_are_read_from_a_file(api_server: Cluster, tmp_path: Path) -> None:
    roles = tmp_path / "roles.yaml"
    rule = {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["list"]}
    role = {"kind": "Role", "metadata": {"name": "agents", "namespace": "agents"}, "rules": [rule]}
    everywhere = {"kind": "ClusterRole", "metadata": {"name": "ls"}, "rules": [{**rule, "verbs": ["get"]}]}
    roles.write_text(yaml.safe_dump_all([role, everywhere, {"kind": "RoleBinding", "metadata": {"name": "agents"}}]))
    api_server.rbac.load(roles, "dev", "shop")
    client = PlainClient(api_server.kubeconfig_for("dev"))
    assert client.get(JOBS.path("agents")).status == 200
    assert client.get(JOBS.path("shop")).status == 403
    assert client.get(JOBS.path("shop", "a")).status == 404


def may(client: PlainClient, **about: str) -> Object:
    body = {"kind": "SelfSubjectAccessReview", "spec": {"resourceAttributes": about}}
    answer = client.create(MAY_I, body)
    assert answer.status == 201, answer.body
    status: Object = answer.json["status"]
    return status


def test_a_user_asks_what_it_may_do(api_server: Cluster) -> None:
    client = PlainClient(api_server.kubeconfig_for("dev"))
    api_server.rbac.allow("dev", "create", POD_PORT_FORWARD, "shop")
    asked = {"verb": "create", "resource": "pods", "subresource": "portforward"}
    allowed = may(client, namespace="shop", **asked)
    assert allowed["allowed"]
    assert allowed["reason"] == 'RBAC: allowed by RoleBinding "granted/shop" of Role "granted" to User "dev"'
    assert may(client, namespace="elsewhere", **asked) == {"allowed": False}
    assert may(PlainClient(api_server.kubeconfig), verb="create", resource="jobs", group="batch") == {"allowed": True}
    wrong = client.create(MAY_I, {"spec": {}})
    assert wrong.status == 422
    assert "exactly one of nonResourceAttributes or resourceAttributes must be specified" in wrong.message
    assert client.create(MAY_I, {"spec": {"resource": "pods"}}).status == 400
