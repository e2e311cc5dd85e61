"""The notify delivery: seccomp user notifications (seccomp_unotify(2)), handled in one listener thread."""

from mirrord_trace.supervisor.delivery.notify.delivery import NotifyDelivery

__all__ = ["NotifyDelivery"]
