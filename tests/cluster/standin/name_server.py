"""The cluster's name server: services' names, as CoreDNS answers for headless ones, from what the store holds."""

from __future__ import annotations

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import trio

from mirrord_trace.cluster.resources import PODS, SERVICES

from .containers.network import NAME_SERVER, within
from .pod_facts import is_ready
from .store import Store

_TIME_TO_LIVE_S = 5
_ZONE = ("svc", "cluster", "local")


async def serve(store: Store, network: int, task_status: trio.TaskStatus[None]) -> None:
    """Answers queries in the nodes' network namespace, without end."""
    with within(network):
        socket = trio.socket.socket(type=trio.socket.SOCK_DGRAM)
    with socket:
        await socket.bind((str(NAME_SERVER), 53))
        task_status.started()
        while True:
            query, sender = await socket.recvfrom(4096)
            response = answer(store, query)
            if response is not None:
                await socket.sendto(response, sender)


def answer(store: Store, query: bytes) -> bytes | None:
    """The answer to a query; None for what is none."""
    try:
        message = dns.message.from_wire(query)
        response = dns.message.make_response(message, recursion_available=True)
    except dns.exception.DNSException:
        return None
    response.flags |= dns.flags.AA
    for question in message.question:
        addresses = _addresses(store, question.name.to_text().lower())
        if addresses is None:
            response.set_rcode(dns.rcode.NXDOMAIN)
        elif addresses and question.rdtype == dns.rdatatype.A:
            response.answer.append(dns.rrset.from_text(question.name, _TIME_TO_LIVE_S, "IN", "A", *addresses))
    return response.to_wire()


def _addresses(store: Store, name: str) -> list[str] | None:
    """The addresses of the ready pods of a service `NAME.NAMESPACE.svc.cluster.local.`; None where there is none."""
    labels = tuple(name.rstrip(".").split("."))
    if len(labels) != 5 or labels[2:] != _ZONE:
        return None
    service = store.find(SERVICES, labels[1], labels[0])
    if service is None:
        return None
    selector = service["spec"].get("selector", {}).items()
    pods = [pod for pod in store.list(PODS, labels[1]) if selector <= pod["metadata"].get("labels", {}).items()]
    return [pod["status"]["podIP"] for pod in pods if is_ready(pod)]
