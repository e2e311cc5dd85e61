"""`demo`: a pod of our own, so that everything can be tried without a cluster.

The plan is a Kubernetes namespace in miniature: the pod `web-demo-0` and services that it reaches by name. All
addresses are served inside the one pod, but whoever calls a service is seen to come from the pod's address, as in a
cluster. The agent starts while the pod's programs do.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import trio

from mirrord_trace.targets.agent_process import with_our_modules
from mirrord_trace.targets.pid import agent_for
from mirrord_trace.targets.sandbox import SandboxPod

if TYPE_CHECKING:
    from mirrord_trace.reporting import Reporter
    from mirrord_trace.targets.base import AgentLink

POD_NAME = "web-demo-0"
DOMAIN = "demo.svc.cluster.local"
NAME_SERVER = ("198.18.0.53", 53)
SHOP = ("198.18.0.10", 8080)
ECHO = ("198.18.0.11", 7007)
WEB = ("198.18.0.20", 80)
CONFIG = "/srv/shop/shop.conf"

_NAMES = {"shop": SHOP, "echo": ECHO, "web": WEB}
_FILES = {
    "/etc/hostname": f"{POD_NAME}\n",
    "/etc/hosts": f"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n{WEB[0]}\t{POD_NAME}\n",
    "/etc/resolv.conf": (
        f"search {DOMAIN} svc.cluster.local cluster.local\nnameserver {NAME_SERVER[0]}\noptions ndots:5\n"
    ),
    CONFIG: f"# What the shop's customers should know.\nurl = http://shop:{SHOP[1]}/\noffer = tea, 4.20 EUR\n",
}
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOSTNAME": POD_NAME,
    "POD_NAME": POD_NAME,
    "POD_NAMESPACE": "demo",
    "POD_IP": WEB[0],
    "GREETING": "Hello from the demo pod",
    "SHOP_URL": f"http://shop.{DOMAIN}:{SHOP[1]}/",
    "SHOP_SERVICE_HOST": SHOP[0],
    "SHOP_SERVICE_PORT": str(SHOP[1]),
    "SHOP_CONFIG": CONFIG,
}


def demo_pod() -> SandboxPod:
    """The pod, not started yet."""
    plan = {
        "names": {f"{name}.{DOMAIN}.": address for name, (address, _) in _NAMES.items()},
        "name_server": NAME_SERVER,
        "echo": ECHO,
        "shop": SHOP,
        "web": WEB,
    }
    services = Path(__file__).with_name("demo_services.py")
    return SandboxPod(
        hostname=POD_NAME,
        addresses=[WEB[0]],
        neighbours=[NAME_SERVER[0], SHOP[0], ECHO[0]],
        files={path: text.encode() for path, text in _FILES.items()},
        environment=_ENVIRONMENT,
        programs=[with_our_modules([sys.executable, "-P", str(services), json.dumps(plan)])],
    )


@attrs.frozen
class DemoTarget:
    """The target `demo`: the pod lives as long as the run."""

    @contextlib.asynccontextmanager
    async def open(self, reporter: Reporter) -> AsyncIterator[AgentLink]:
        """See `Target.open`."""
        pod = demo_pod()
        try:
            with reporter.step("making the demo pod") as step:
                await trio.to_thread.run_sync(pod.start)
                step.detail(POD_NAME)
            async with agent_for(pod.pid, f"demo ({POD_NAME})", reporter) as link:
                with reporter.step("waiting for the demo's services"):
                    await trio.to_thread.run_sync(pod.wait_until_ready)
                yield link
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(pod.stop)
