"""The ptrace delivery: seccomp stops (PTRACE_EVENT_SECCOMP) of a seized process tree, handled in one tracer thread."""

from mirrord_trace.supervisor.delivery.ptrace.tracer import PtraceDelivery

__all__ = ["PtraceDelivery"]
