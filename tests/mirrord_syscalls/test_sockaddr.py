import ctypes
import os
import socket
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrord_syscalls.abi import ABIS
from mirrord_syscalls.sockaddr import (
    SOCKADDR_IN6_BYTES,
    SOCKADDR_IN6_MINIMUM_BYTES,
    SOCKADDR_IN_BYTES,
    SOCKADDR_STORAGE_BYTES,
    SOCKADDR_UN_BYTES,
    UNIX_PATH_MAXIMUM_BYTES,
    Inet4,
    Inet6,
    OtherFamily,
    SocketAddress,
    Unix,
    Unspecified,
    decode_sockaddr,
    encode_sockaddr,
    mapped_ipv4,
    to_mapped,
)
from tests.mirrord_syscalls.compiler import check_in_c

ports = st.integers(0, 0xFFFF)
words = st.integers(0, 0xFFFF_FFFF)
pathnames = st.binary(max_size=UNIX_PATH_MAXIMUM_BYTES).filter(lambda path: b"\0" not in path)
abstract_names = st.binary(max_size=UNIX_PATH_MAXIMUM_BYTES - 1).map(lambda name: b"\0" + name)

inet4 = st.builds(Inet4, st.ip_addresses(v=4), ports)
inet6 = st.builds(Inet6, words.map(IPv6Address) | st.ip_addresses(v=6), ports, words, words)
unix = st.builds(Unix, pathnames | abstract_names)
known_families = {socket.AF_UNSPEC, socket.AF_UNIX, socket.AF_INET, socket.AF_INET6}
other = st.builds(
    lambda family, rest: OtherFamily(family, family.to_bytes(2, "little") + rest),
    ports.filter(lambda family: family not in known_families),
    st.binary(max_size=SOCKADDR_STORAGE_BYTES - 2),
)
addresses: st.SearchStrategy[SocketAddress] = st.one_of(inet4, inet6, unix, other, st.just(Unspecified()))


@given(addresses)
def test_what_is_encoded_decodes_to_itself(address: SocketAddress) -> None:
    raw = encode_sockaddr(address)
    assert decode_sockaddr(raw) == address
    assert decode_sockaddr(bytearray(raw)) == address
    assert decode_sockaddr(memoryview(raw)) == address


@given(inet4 | inet6, st.binary(max_size=SOCKADDR_STORAGE_BYTES - SOCKADDR_IN6_BYTES))
def test_trailing_data_of_an_internet_address_is_ignored(address: SocketAddress, trailing: bytes) -> None:
    assert decode_sockaddr(encode_sockaddr(address) + trailing) == address


@given(inet4 | inet6)
def test_an_internet_address_is_refused_while_it_is_too_short(address: SocketAddress) -> None:
    raw = encode_sockaddr(address)
    enough = SOCKADDR_IN_BYTES if isinstance(address, Inet4) else SOCKADDR_IN6_MINIMUM_BYTES
    for length in range(len(raw) + 1):
        if length < enough:
            with pytest.raises(ValueError, match=r"takes .* bytes"):
                decode_sockaddr(raw[:length])
        else:
            decode_sockaddr(raw[:length])


@given(inet6)
def test_an_ipv6_address_may_come_without_its_scope(address: Inet6) -> None:
    short = decode_sockaddr(encode_sockaddr(address)[:SOCKADDR_IN6_MINIMUM_BYTES])
    assert short == Inet6(address.host, address.port, address.flow_info)


@given(st.one_of(st.sampled_from(sorted(known_families)), ports), st.binary(max_size=140))
def test_any_bytes_are_an_address_or_an_error(family: int, rest: bytes) -> None:
    raw = family.to_bytes(2, "little") + rest
    try:
        address = decode_sockaddr(raw)
    except ValueError:
        return
    assert len(raw) <= SOCKADDR_STORAGE_BYTES
    assert decode_sockaddr(encode_sockaddr(address)) == address


@pytest.mark.parametrize("length", [0, 1, SOCKADDR_STORAGE_BYTES + 1])
def test_a_length_that_no_family_has_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=f"not {length}"):
        decode_sockaddr(bytes(length))


def test_unix_names_are_read_as_the_kernel_reads_them() -> None:
    family = socket.AF_UNIX.to_bytes(2, "little")
    assert decode_sockaddr(family) == Unix(b"")
    assert decode_sockaddr(family + b"/run/a\0garbage") == Unix(b"/run/a")
    assert decode_sockaddr(family + b"/run/a") == Unix(b"/run/a")
    assert decode_sockaddr(family + b"\0a\0b\0") == Unix(b"\0a\0b\0")
    longest = b"x" * UNIX_PATH_MAXIMUM_BYTES
    assert decode_sockaddr(family + longest) == Unix(longest)
    with pytest.raises(ValueError, match="at most 110 bytes, not 111"):
        decode_sockaddr(family + longest + b"\0")


def test_only_an_abstract_name_is_abstract() -> None:
    assert Unix(b"\0name").is_abstract
    assert not Unix(b"/name").is_abstract
    assert not Unix(b"").is_abstract


@pytest.mark.parametrize("path", [b"x" * 109, b"\0" + b"x" * 108, b"/a\0b"])
def test_a_unix_name_that_no_socket_can_have_is_not_encoded(path: bytes) -> None:
    with pytest.raises(ValueError, match="Unix socket"):
        encode_sockaddr(Unix(path))


@given(inet4)
def test_mapping_an_ipv4_address_is_undone(address: Inet4) -> None:
    mapped = to_mapped(address)
    assert mapped.host.ipv4_mapped == address.host
    assert mapped_ipv4(mapped) == address


@given(addresses)
def test_only_ipv4_mapped_addresses_are_ipv4(address: SocketAddress) -> None:
    expected = None
    if isinstance(address, Inet6) and address.host.ipv4_mapped is not None:
        expected = Inet4(address.host.ipv4_mapped, address.port)
    assert mapped_ipv4(address) == expected


@pytest.mark.parametrize("architecture", ABIS)
def test_sizes_and_families_are_those_of_the_c_library(architecture: str, tmp_path: Path) -> None:
    claims = [
        f"sizeof(struct sockaddr_in) == {SOCKADDR_IN_BYTES}",
        f"sizeof(struct sockaddr_in6) == {SOCKADDR_IN6_BYTES}",
        f"offsetof(struct sockaddr_in6, sin6_scope_id) == {SOCKADDR_IN6_MINIMUM_BYTES}",
        f"sizeof(struct sockaddr_un) == {SOCKADDR_UN_BYTES}",
        f"sizeof(((struct sockaddr_un *)0)->sun_path) == {UNIX_PATH_MAXIMUM_BYTES}",
        f"sizeof(struct sockaddr_storage) == {SOCKADDR_STORAGE_BYTES}",
        *(f"{name} == {int(getattr(socket, name))}" for name in ("AF_UNSPEC", "AF_UNIX", "AF_INET", "AF_INET6")),
    ]
    headers = ["stddef.h", "sys/socket.h", "sys/un.h", "netinet/in.h"]
    check_in_c(architecture, headers, claims, tmp_path)


libc = ctypes.CDLL(None, use_errno=True)


def bind_raw(endpoint: socket.socket, raw: bytes) -> None:
    if libc.bind(endpoint.fileno(), raw, len(raw)) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def name_raw(endpoint: socket.socket) -> bytes:
    buffer, length = ctypes.create_string_buffer(SOCKADDR_STORAGE_BYTES), ctypes.c_uint(SOCKADDR_STORAGE_BYTES)
    assert libc.getsockname(endpoint.fileno(), buffer, ctypes.byref(length)) == 0
    return buffer.raw[: length.value]


@pytest.mark.parametrize(
    "address",
    [Inet4(IPv4Address("127.0.0.1"), 0), Inet6(IPv6Address("::1"), 0), to_mapped(Inet4(IPv4Address("127.0.0.1"), 0))],
    ids=["ipv4", "ipv6", "ipv4-mapped"],
)
def test_the_kernel_takes_and_gives_our_internet_addresses(address: Inet4 | Inet6) -> None:
    family = socket.AF_INET if isinstance(address, Inet4) else socket.AF_INET6
    with socket.socket(family, socket.SOCK_STREAM) as endpoint:
        bind_raw(endpoint, encode_sockaddr(address))
        raw = name_raw(endpoint)
        name = decode_sockaddr(raw)
        assert isinstance(name, Inet4 | Inet6)
        assert name.host == address.host
        assert name.port == endpoint.getsockname()[1] != 0
        assert encode_sockaddr(name) == raw


@pytest.mark.parametrize("kind", ["pathname", "abstract", "autobound", "unnamed"])
def test_the_kernel_takes_and_gives_our_unix_addresses(kind: str, tmp_path: Path) -> None:
    paths = {"pathname": bytes(tmp_path / "socket"), "abstract": b"\0" + os.urandom(8).hex().encode()}
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as endpoint:
        if kind in paths:
            bind_raw(endpoint, encode_sockaddr(Unix(paths[kind])))
        elif kind == "autobound":
            bind_raw(endpoint, socket.AF_UNIX.to_bytes(2, "little"))
        raw = name_raw(endpoint)
        name = decode_sockaddr(raw)
        assert isinstance(name, Unix)
        if kind in paths:
            assert name == Unix(paths[kind])
        else:
            assert name.is_abstract == (kind == "autobound")
        assert encode_sockaddr(name) == raw


def test_the_kernel_takes_the_longest_pathname(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = b"x" * UNIX_PATH_MAXIMUM_BYTES
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as endpoint:
        bind_raw(endpoint, encode_sockaddr(Unix(path)))
    assert os.listdir(b".") == [path]
