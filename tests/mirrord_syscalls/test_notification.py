"""The listener's structures, as the C compiler sees them."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from mirrord_syscalls.structs import notification
from tests.mirrord_syscalls.compiler import ZIG_TARGETS, check_in_c

# In the headers that zig carries, whatever the kernel of this machine has.
CLAIMS = [
    f"sizeof(struct seccomp_notif) == {notification.NOTIFICATION_BYTES}",
    f"sizeof(struct seccomp_notif_resp) == {notification.RESPONSE_BYTES}",
    f"sizeof(struct seccomp_notif_addfd) == {notification.ADDFD_BYTES}",
    f"SECCOMP_IOCTL_NOTIF_RECV == {notification.RECEIVE}u",
    f"SECCOMP_IOCTL_NOTIF_SEND == {notification.SEND}u",
    f"SECCOMP_IOCTL_NOTIF_ID_VALID == {notification.ID_VALID}u",
    f"SECCOMP_IOCTL_NOTIF_ADDFD == {notification.ADDFD}u",
    f"SECCOMP_IOCTL_NOTIF_SET_FLAGS == {notification.SET_FLAGS}u",
    f"SECCOMP_USER_NOTIF_FLAG_CONTINUE == {notification.FLAG_CONTINUE}",
    f"SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP == {notification.FLAG_SYNC_WAKE_UP}",
    f"SECCOMP_ADDFD_FLAG_SEND == {notification.FLAG_ADDFD_SEND}",
    f"SECCOMP_FILTER_FLAG_NEW_LISTENER == {notification.FILTER_NEW_LISTENER}",
    f"SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV == {notification.FILTER_WAIT_KILLABLE}",
    "__builtin_offsetof(struct seccomp_notif, pid) == 8",
    "__builtin_offsetof(struct seccomp_notif, data) == 16",
    "__builtin_offsetof(struct seccomp_data, nr) == 0",
    "__builtin_offsetof(struct seccomp_data, arch) == 4",
    "__builtin_offsetof(struct seccomp_data, instruction_pointer) == 8",
    "__builtin_offsetof(struct seccomp_data, args) == 16",
    "__builtin_offsetof(struct seccomp_notif_resp, val) == 8",
    "__builtin_offsetof(struct seccomp_notif_resp, error) == 16",
    "__builtin_offsetof(struct seccomp_notif_resp, flags) == 20",
    "__builtin_offsetof(struct seccomp_notif_addfd, flags) == 8",
    "__builtin_offsetof(struct seccomp_notif_addfd, srcfd) == 12",
    "__builtin_offsetof(struct seccomp_notif_addfd, newfd) == 16",
    "__builtin_offsetof(struct seccomp_notif_addfd, newfd_flags) == 20",
]


@pytest.mark.parametrize("architecture", ZIG_TARGETS)
def test_layouts_and_numbers_are_those_of_the_kernels_headers(architecture: str, tmp_path: Path) -> None:
    check_in_c(architecture, ["linux/seccomp.h", "sys/ioctl.h"], CLAIMS, tmp_path)


def test_formats_have_the_sizes() -> None:
    assert notification.NOTIFICATION.size == notification.NOTIFICATION_BYTES
    assert notification.RESPONSE.size == notification.RESPONSE_BYTES


def test_a_descriptor_is_given_as_the_answer() -> None:
    raw = notification.encode_addfd(7, 5, 0o2000000)
    assert len(raw) == notification.ADDFD_BYTES
    assert struct.unpack("=QIIII", raw) == (7, notification.FLAG_ADDFD_SEND, 5, 0, 0o2000000)
