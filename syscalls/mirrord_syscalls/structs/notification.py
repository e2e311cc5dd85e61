"""What is exchanged with a seccomp listener (seccomp_unotify(2); struct seccomp_notif and others in linux/seccomp.h).

The kernel copies these structures whole and refuses a receiving buffer that is not all zeros. Everything here is on the
path of each intercepted call, so a notification is a plain tuple and answers are packed in one step.
"""

import struct
from typing import Final

NOTIFICATION_BYTES: Final = 80
"""sizeof(struct seccomp_notif)."""
RESPONSE_BYTES: Final = 24
"""sizeof(struct seccomp_notif_resp)."""
ADDFD_BYTES: Final = 24
"""sizeof(struct seccomp_notif_addfd)."""

RECEIVE: Final = 0xC050_2100
"""SECCOMP_IOCTL_NOTIF_RECV, _IOWR('!', 0, struct seccomp_notif)."""
SEND: Final = 0xC018_2101
"""SECCOMP_IOCTL_NOTIF_SEND, _IOWR('!', 1, struct seccomp_notif_resp)."""
ID_VALID: Final = 0x4008_2102
"""SECCOMP_IOCTL_NOTIF_ID_VALID, _IOW('!', 2, __u64)."""
ADDFD: Final = 0x4018_2103
"""SECCOMP_IOCTL_NOTIF_ADDFD, _IOW('!', 3, struct seccomp_notif_addfd), Linux 5.9."""
SET_FLAGS: Final = 0x4008_2104
"""SECCOMP_IOCTL_NOTIF_SET_FLAGS, _IOW('!', 4, __u64), Linux 6.6."""

FLAG_CONTINUE: Final = 1
"""SECCOMP_USER_NOTIF_FLAG_CONTINUE, Linux 5.5."""
FLAG_SYNC_WAKE_UP: Final = 1
"""SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP, Linux 6.6."""
FLAG_ADDFD_SEND: Final = 2
"""SECCOMP_ADDFD_FLAG_SEND, Linux 5.14."""

FILTER_NEW_LISTENER: Final = 8
"""SECCOMP_FILTER_FLAG_NEW_LISTENER, Linux 5.0."""
FILTER_WAIT_KILLABLE: Final = 32
"""SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, Linux 5.19."""

NOTIFICATION: Final = struct.Struct("=QII iIQ 6Q")
"""id, tid, flags, call number, AUDIT_ARCH_*, instruction pointer, six arguments."""
RESPONSE: Final = struct.Struct("=QqiI")
"""id, return value, negative errno, flags."""
_addfd = struct.Struct("=QIIII")


def encode_addfd(identity: int, descriptor: int, new_flags: int, flags: int = FLAG_ADDFD_SEND) -> bytes:
    """Return the request to put our `descriptor` into the task of a notification, as the result of its call.

    `new_flags`: O_CLOEXEC or 0. `flags`: 0 where the call is to be answered later.
    """
    return _addfd.pack(identity, flags, descriptor, 0, new_flags)
