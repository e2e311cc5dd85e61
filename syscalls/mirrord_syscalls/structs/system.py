"""Structures of uname(2), openat2(2), signalfd(2) and statfs(2).

Source: include/uapi/linux/{utsname,openat2,signalfd}.h, asm-generic/statfs.h.
"""

import struct
from typing import ClassVar, Self

import attrs

from mirrord_syscalls.structs.layout import Buffer, require

_open_how = struct.Struct("<QQQ")
_signalfd_siginfo = struct.Struct("<IiiII20xi84x")
_statfs = struct.Struct("<qq6Q3q32x")

_UTSNAME_FIELD_BYTES = 65


@attrs.frozen
class Utsname:
    """struct new_utsname: what uname(2) writes. Each field is at most 64 bytes and contains no NUL."""

    SIZE: ClassVar[int] = 6 * _UTSNAME_FIELD_BYTES

    sysname: bytes
    nodename: bytes
    release: bytes
    version: bytes
    machine: bytes
    domainname: bytes

    @classmethod
    def decode(cls, raw: Buffer) -> Self:
        """Read the structure at the start of `raw`. Raises ValueError if it is not wholly there."""
        require(raw, 0, cls.SIZE, "struct utsname")
        starts = range(0, cls.SIZE, _UTSNAME_FIELD_BYTES)
        return cls(*(bytes(raw[start : start + _UTSNAME_FIELD_BYTES]).partition(b"\0")[0] for start in starts))

    def encode(self) -> bytes:
        """Return the structure's bytes. Raises ValueError for a field that is too long or contains NUL."""
        fields = (self.sysname, self.nodename, self.release, self.version, self.machine, self.domainname)
        for field in fields:
            if len(field) >= _UTSNAME_FIELD_BYTES or b"\0" in field:
                raise ValueError(f"a field of struct utsname takes up to 64 bytes and no NUL: {field!r}")
        return b"".join(field.ljust(_UTSNAME_FIELD_BYTES, b"\0") for field in fields)


@attrs.frozen
class OpenHow:
    """struct open_how: what openat2(2) points to."""

    SIZE: ClassVar[int] = 24

    flags: int
    mode: int
    resolve: int

    @classmethod
    def decode(cls, raw: Buffer) -> Self:
        """Read the structure; `raw` has the size that the caller gave.

        Raises ValueError if that is too small (the kernel's EINVAL) or if a newer, larger structure uses a field that
        we do not know (the kernel's E2BIG).
        """
        require(raw, 0, cls.SIZE, "struct open_how")
        if any(raw[cls.SIZE :]):
            raise ValueError("struct open_how has fields beyond the first 24 bytes that are not zero")
        return cls(*_open_how.unpack_from(raw))

    def encode(self) -> bytes:
        """Return the structure's bytes."""
        return _open_how.pack(self.flags, self.mode, self.resolve)


@attrs.frozen
class SignalfdSiginfo:
    """struct signalfd_siginfo: one signal read from a signalfd(2)."""

    SIZE: ClassVar[int] = 128

    signo: int
    errno: int
    code: int
    pid: int
    """The sender, or the child that changed state."""
    uid: int
    status: int
    """For SIGCHLD: the exit status or the signal, as `code` says (CLD_EXITED and others)."""

    @classmethod
    def decode(cls, raw: Buffer, offset: int = 0) -> Self:
        """Read one structure at `offset`. Raises ValueError if it is not wholly there."""
        require(raw, offset, cls.SIZE, "struct signalfd_siginfo")
        return cls(*_signalfd_siginfo.unpack_from(raw, offset))


@attrs.frozen
class Statfs:
    """struct statfs: what statfs(2) tells of a file system. Blocks are counted in `bsize`."""

    SIZE: ClassVar[int] = 120

    type: int
    bsize: int
    blocks: int
    bfree: int
    bavail: int
    files: int
    ffree: int
    fsid: int
    """The two halves of f_fsid in one number."""
    namelen: int
    frsize: int
    flags: int

    @classmethod
    def decode(cls, raw: Buffer, offset: int = 0) -> Self:
        """Read the structure at `offset`. Raises ValueError if it is not wholly there."""
        require(raw, offset, cls.SIZE, "struct statfs")
        return cls(*_statfs.unpack_from(raw, offset))

    def encode(self) -> bytes:
        """Return the structure's bytes."""
        return _statfs.pack(*attrs.astuple(self))
