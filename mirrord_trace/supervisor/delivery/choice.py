"""Which delivery serves: what the user asks for, or the faster one where it works.

Notification costs a fraction of a ptrace stop, leaves signals alone and lets debuggers work. What it needs is not
everywhere: older kernels, containers that deny pidfd_getfd(2), and processes that have a listener already get ptrace.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from mirrord_syscalls.abi import Abi
from mirrord_trace.config.model import Delivery as Wanted
from mirrord_trace.errors import Failure
from mirrord_trace.supervisor.delivery.base import Delivery, Handlers
from mirrord_trace.supervisor.delivery.notify.probe import Unavailable, probe

MakeDelivery = Callable[[Handlers], Delivery]
LoadDelivery = Callable[[], MakeDelivery]
"""Loading a delivery takes its time."""


def choose(wanted: Wanted, abi: Abi, explain: Callable[[str], None]) -> LoadDelivery:
    """What loads the delivery. Says what was chosen and why. Call it in the main thread, before another is started.

    Raises Failure when notify is wanted and cannot be had.
    """
    try:
        probe(abi)
    except Unavailable as reason:
        if wanted == "notify":
            advice = "use --delivery ptrace, or auto, which takes it where notify is not to be had"
            raise Failure(f"system calls cannot be notified here: {reason}", advice) from reason
        because = "as asked for" if wanted == "ptrace" else f"because notify is not to be had here: {reason}"
        explain(f"delivery: ptrace, {because}")
        return partial(_ptrace, abi, str(reason))
    if wanted == "ptrace":
        explain("delivery: ptrace, as asked for")
        return partial(_ptrace, abi, None)
    explain("delivery: notify, as asked for" if wanted == "notify" else "delivery: notify, which was tried and works")
    return partial(_notify, abi)


def _ptrace(abi: Abi, notify_is_missing: str | None) -> MakeDelivery:
    from mirrord_trace.supervisor.delivery.ptrace.tracer import PtraceDelivery

    return partial(PtraceDelivery, abi=abi, notify_is_missing=notify_is_missing)


def _notify(abi: Abi) -> MakeDelivery:
    from mirrord_trace.supervisor.delivery.notify.delivery import NotifyDelivery

    return partial(NotifyDelivery, abi=abi)
