from pathlib import Path

import pytest
from ptrace.binding import linux_struct

from mirrord_syscalls.abi import (
    AARCH64,
    ABIS,
    ARGUMENTS,
    X86_64,
    Abi,
    ArgumentKind,
    PathArgument,
    native_abi,
    path_arguments,
)
from tests.mirrord_syscalls.compiler import check_in_c, system_call_numbers

every_abi = pytest.mark.parametrize("abi", ABIS.values(), ids=ABIS)


@every_abi
def test_numbers_agree_with_the_kernel_headers(abi: Abi) -> None:
    # Headers and table may differ in age: up to the older one's last call they must be the same.
    headers = system_call_numbers(abi.name)
    last = min(max(headers.values()), max(abi.numbers.values()))
    assert last >= 450  # set_mempolicy_home_node, Linux 5.17
    assert {n: v for n, v in headers.items() if v <= last} == {n: v for n, v in abi.numbers.items() if v <= last}


@every_abi
def test_constants_agree_with_the_kernel_headers(abi: Abi, tmp_path: Path) -> None:
    claims = [f"AUDIT_ARCH_{abi.name.upper()} == {abi.audit_arch}u"]
    if abi.x32_bit is not None:
        claims.append(f"__X32_SYSCALL_BIT == {abi.x32_bit}")
    check_in_c(abi.name, ["linux/audit.h", "asm/unistd.h"], claims, tmp_path)


@every_abi
def test_names_invert_numbers(abi: Abi) -> None:
    assert {name: abi.numbers[name] for name in abi.names.values()} == abi.numbers
    assert all(abi.numbers[name] == number for number, name in abi.names.items())


@every_abi
def test_arguments_are_those_of_calls_that_exist(abi: Abi) -> None:
    assert set(abi.arguments) == set(abi.numbers) & set(ARGUMENTS)


def test_every_call_with_known_arguments_exists_somewhere() -> None:
    assert set(ARGUMENTS) <= set(X86_64.numbers) | set(AARCH64.numbers)


@pytest.mark.parametrize("call", ARGUMENTS)
def test_arguments_belong_together(call: str) -> None:
    kinds = ARGUMENTS[call]
    assert len(kinds) <= 6
    for kind, following in zip(kinds, (*kinds[1:], None), strict=True):
        if kind is ArgumentKind.DIRFD:
            assert following is ArgumentKind.PATH
        if kind is ArgumentKind.SOCKADDR:
            assert following in (ArgumentKind.LENGTH, ArgumentKind.LENGTH_POINTER)


@pytest.mark.parametrize(
    ("call", "places"),
    [
        ("fstat", []),
        ("open", [(0, None)]),
        ("openat", [(1, 0)]),
        ("execveat", [(1, 0)]),
        ("rename", [(0, None), (1, None)]),
        ("renameat2", [(1, 0), (3, 2)]),
        ("symlink", [(1, None)]),  # what a link says is no path of the caller's
        ("symlinkat", [(2, 1)]),
        ("inotify_add_watch", [(1, None)]),  # the descriptor before it is no directory
        ("fanotify_mark", [(4, 3)]),
    ],
)
def test_where_paths_are(call: str, places: list[tuple[int, int | None]]) -> None:
    assert path_arguments(call) == tuple(PathArgument(index, directory) for index, directory in places)


def test_paths_of_a_call_without_known_arguments() -> None:
    with pytest.raises(KeyError):
        path_arguments("madvise")


def test_registers_of_this_machine_are_in_python_ptrace() -> None:
    abi = native_abi()
    registers = {field[0] for field in linux_struct.user_regs_struct._fields_}
    places = {abi.number_register, abi.result_register, abi.instruction_pointer, abi.stack_pointer}
    assert places | set(abi.argument_registers) <= registers


def test_native_abi_names_an_unknown_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "s390x")
    with pytest.raises(LookupError, match="s390x"):
        native_abi()
