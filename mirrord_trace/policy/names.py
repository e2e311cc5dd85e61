"""The files by which a program learns names: which of them are the target's, and how nsswitch.conf is adapted."""

from __future__ import annotations

import os.path

NSSWITCH = b"/etc/nsswitch.conf"
HOSTNAME = b"/etc/hostname"
HOSTNAME_IN_PROC = b"/proc/sys/kernel/hostname"
RESOLV_CONF = b"/etc/resolv.conf"
TARGET_FILES = (RESOLV_CONF, b"/etc/hosts", HOSTNAME)
"""Read from the target as they are."""
PRESENTED = frozenset((*TARGET_FILES, NSSWITCH, HOSTNAME_IN_PROC))
"""Every path that is presented to the process."""

LAST_COMPONENTS = tuple(sorted(os.path.basename(path) for path in PRESENTED))
"""A path that ends in none of these cannot be one of them, wherever it starts from: the cheap first test."""


def adapted_nsswitch(local: str) -> str:
    """This machine's nsswitch.conf with host names looked up in /etc/hosts and by DNS only.

    The modules named there are this machine's, so its file is the base; others than `files` and `dns` (mdns, resolve,
    myhostname, libvirt) would answer for this machine (nsswitch.conf(5)).
    """
    kept = [line for line in local.splitlines() if line.split(":", 1)[0].strip() != "hosts"]
    return "\n".join([*kept, "hosts: files dns", ""])
