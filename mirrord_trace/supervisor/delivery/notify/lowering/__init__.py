"""How an intent is carried out under notifications: we make the call, with what the verdict says, and give its result.

A notified call cannot be rewritten. It is made here on a duplicate of the task's descriptor, which is the same open
socket, with data from the task's memory; what it hands out is written there. Where it would block, a coroutine waits
in the task's stead. What is not ours to change (a Unix socket's messages, say) the task's own call does.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from mirrord_trace.supervisor.delivery.base import PresentAddresses, UseAddress, UseAddresses, UsePath, UsePaths
from mirrord_trace.supervisor.delivery.notify.lowering.accepts import lower_accept
from mirrord_trace.supervisor.delivery.notify.lowering.connects import lower_connect
from mirrord_trace.supervisor.delivery.notify.lowering.names import lower_names
from mirrord_trace.supervisor.delivery.notify.lowering.paths import lower_path
from mirrord_trace.supervisor.delivery.notify.lowering.receives import lower_receive
from mirrord_trace.supervisor.delivery.notify.lowering.sends import lower_send, lower_sends
from mirrord_trace.supervisor.delivery.notify.replies import NotifiedCall, Reply

_WITH_ADDRESS: Final[Mapping[str, Callable[[NotifiedCall, UseAddress], Reply | Coroutine[Any, Any, Reply]]]] = {
    "connect": lower_connect,
    "sendto": lower_send,
    "sendmsg": lower_send,
}
_PRESENTING: Final[Mapping[str, Callable[[NotifiedCall, PresentAddresses], Reply | Coroutine[Any, Any, Reply]]]] = {
    "accept": lower_accept,
    "accept4": lower_accept,
    "getsockname": lower_names,
    "getpeername": lower_names,
    "recvfrom": lower_receive,
    "recvmsg": lower_receive,
    "recvmmsg": lower_receive,
}


def lower(
    call: NotifiedCall, verdict: UseAddress | UseAddresses | UsePath | UsePaths | PresentAddresses
) -> Reply | Coroutine[Any, Any, Reply]:
    """The answer to a call, or a coroutine that ends in it, for Trio's thread; to be cancelled when the task is gone.

    Raises (as the coroutine may) MemoryFault; MemoryHidden; TaskGone; OSError, whose errno is the answer.
    """
    match verdict:
        case UsePath() | UsePaths():
            return lower_path(call, verdict)
        case UseAddress():
            return _WITH_ADDRESS[call.name](call, verdict)
        case PresentAddresses():
            return _PRESENTING[call.name](call, verdict)
        case UseAddresses():
            return lower_sends(call, verdict)
