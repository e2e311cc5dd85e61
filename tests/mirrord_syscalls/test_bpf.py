import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrord_syscalls.abi import AARCH64, ABIS, X86_64, Abi
from mirrord_syscalls.bpf import (
    REFUSED_CALLS,
    RET_ALLOW,
    RET_ERRNO,
    RET_TRACE,
    RET_USER_NOTIF,
    compile_filter,
    socket_filter_drop_all,
)
from mirrord_syscalls.subscription import WORD, AnyBit, ArgumentTest, Equals, NonZero, Rule, Subscription
from tests.mirrord_syscalls.bpf_interpreter import Program, seccomp_data
from tests.mirrord_syscalls.compiler import check_in_c

NO_SUCH_CALL = RET_ERRNO | errno.ENOSYS
ACTION = RET_TRACE | 0x1234

every_abi = pytest.mark.parametrize("abi", ABIS.values(), ids=ABIS)

abis = st.sampled_from(sorted(ABIS.values(), key=lambda abi: abi.name))
calls = st.sampled_from(sorted((X86_64.numbers.keys() | AARCH64.numbers.keys()) - set(REFUSED_CALLS)))
indexes = st.integers(0, 5)
# Few distinct words, so that arguments and tests often nearly agree, in either half.
halves = st.sampled_from([0, 1, 2, 6, 0x80000, 0x8000_0000, 0xFFFF_FFFF]) | st.integers(0, 0xFFFF_FFFF)
arguments = st.builds(lambda high, low: high << 32 | low, halves, halves)
masks = st.just(WORD) | st.sampled_from([0xFFFF_FFFF, 0xF, 1 << 32]) | arguments.filter(bool)


@st.composite
def equals(draw: st.DrawFn) -> Equals:
    mask = draw(masks)
    return Equals(draw(indexes), draw(arguments) & mask, mask)


tests: st.SearchStrategy[ArgumentTest] = st.builds(NonZero, indexes) | equals() | st.builds(AnyBit, indexes, masks)
rules = st.builds(Rule, calls, st.lists(tests, max_size=4).map(tuple))
subscriptions = st.lists(rules, max_size=40).map(Subscription.of)


def answer(program: Program, abi: Abi, number: int, args: tuple[int, ...] = (0,) * 6) -> int:
    return program.run(seccomp_data(number, abi.audit_arch, args)).answer


@given(st.data(), subscriptions, abis)
def test_the_program_decides_as_the_subscription_says(
    data: st.DataObject, subscription: Subscription, abi: Abi
) -> None:
    program = Program.load(compile_filter(subscription, abi, ACTION))
    subscribed = sorted({rule.call for rule in subscription.rules} & set(abi.numbers))
    for call in [*subscribed, data.draw(st.sampled_from(sorted(abi.numbers)))]:
        for args in data.draw(st.lists(st.tuples(*[arguments] * 6), min_size=1, max_size=5)):
            expected = ACTION if subscription.matches(call, args) else RET_ALLOW
            if call in REFUSED_CALLS:
                expected = NO_SUCH_CALL
            assert answer(program, abi, abi.numbers[call], args) == expected


@given(st.data(), rules)
def test_an_argument_that_is_close_to_passing_is_told_apart(data: st.DataObject, rule: Rule) -> None:
    abi = X86_64 if rule.call in X86_64.numbers else AARCH64
    subscription = Subscription.of([rule])
    program = Program.load(compile_filter(subscription, abi, ACTION))
    args = list(data.draw(st.tuples(*[arguments] * 6)))
    for test in rule.tests:
        match test:
            case Equals(index, value, mask):
                args[index] = args[index] & ~mask | value
            case AnyBit(index, mask):
                args[index] |= mask & -mask
            case NonZero(index):
                args[index] |= 1 << 32
    candidates = [tuple(args)]
    for index in range(6):
        bit = 1 << data.draw(st.integers(0, 63))
        candidates.append((*args[:index], args[index] ^ bit, *args[index + 1 :]))
    for candidate in candidates:
        expected = ACTION if subscription.matches(rule.call, candidate) else RET_ALLOW
        assert answer(program, abi, abi.numbers[rule.call], candidate) == expected


@given(subscriptions, st.integers(0, 0xFFFF_FFFF), st.sampled_from([X86_64, AARCH64]))
def test_a_number_that_is_no_call_is_left_to_the_kernel(subscription: Subscription, number: int, abi: Abi) -> None:
    program = Program.load(compile_filter(subscription, abi, ACTION))
    if number not in abi.names:
        is_x32 = abi.x32_bit is not None and number >= abi.x32_bit
        assert answer(program, abi, number) == (NO_SUCH_CALL if is_x32 else RET_ALLOW)


@given(subscriptions, abis, st.integers(0, 0xFFFF_FFFF))
def test_a_foreign_architecture_has_no_calls(subscription: Subscription, abi: Abi, arch: int) -> None:
    program = Program.load(compile_filter(subscription, abi, ACTION))
    audit_arch_i386 = 0x4000_0003
    for foreign in {arch, audit_arch_i386} - {abi.audit_arch}:
        for number in [0, *(abi.numbers[rule.call] for rule in subscription.rules if rule.call in abi.numbers)]:
            assert program.run(seccomp_data(number, foreign, (1,) * 6)).answer == NO_SUCH_CALL


@given(subscriptions)
def test_x32_has_no_calls(subscription: Subscription) -> None:
    program = Program.load(compile_filter(subscription, X86_64, ACTION))
    for number in X86_64.names:
        assert answer(program, X86_64, 0x4000_0000 | number) == NO_SUCH_CALL


@every_abi
def test_io_uring_does_not_exist(abi: Abi) -> None:
    program = Program.load(compile_filter(Subscription(), abi, ACTION))
    assert {call: answer(program, abi, number) for call, number in abi.numbers.items()} == {
        call: NO_SUCH_CALL if call in REFUSED_CALLS else RET_ALLOW for call in abi.numbers
    }


@pytest.mark.parametrize("action", [RET_TRACE, RET_USER_NOTIF, RET_ERRNO | errno.EPERM])
def test_the_action_is_the_callers(action: int) -> None:
    program = Program.load(compile_filter(Subscription.of(["connect"]), X86_64, action))
    assert answer(program, X86_64, X86_64.numbers["connect"]) == action


@every_abi
@pytest.mark.parametrize("alternatives", [1, 4], ids=["one rule a call", "four rules a call"])
def test_jumps_reach_across_a_long_program(abi: Abi, alternatives: int) -> None:
    names = sorted(set(abi.numbers) - set(REFUSED_CALLS))[: 280 // alternatives]
    rules = [
        Rule(name, (NonZero(0), Equals(1, abi.numbers[name] + 1 << 32 | value), AnyBit(2, 1 << 40)))
        for name in names
        for value in range(alternatives)
    ]
    raw = compile_filter(Subscription.of(rules), abi, ACTION)
    assert len(raw) // 8 > 4 * 255
    program = Program.load(raw)
    for name in names:
        number = abi.numbers[name]
        magic = number + 1 << 32
        for value in range(alternatives + 1):
            expected = ACTION if value < alternatives else RET_ALLOW
            assert answer(program, abi, number, (1, magic | value, 1 << 40, 0, 0, 0)) == expected
        for args in ((0, magic, 1 << 40), (1, magic >> 32, 1 << 40), (1, magic, 1 << 39)):
            assert answer(program, abi, number, (*args, 0, 0, 0)) == RET_ALLOW


def test_jumps_reach_across_a_call_with_many_rules() -> None:
    rules = [Rule("connect", (Equals(0, value), NonZero(1))) for value in range(300)]
    program = Program.load(compile_filter(Subscription.of(rules), X86_64, ACTION))
    for value in range(301):
        expected = ACTION if value < 300 else RET_ALLOW
        assert answer(program, X86_64, X86_64.numbers["connect"], (value, 1 << 63, 0, 0, 0, 0)) == expected
        assert answer(program, X86_64, X86_64.numbers["connect"], (value, 0, 0, 0, 0, 0)) == RET_ALLOW


def test_jumps_reach_over_every_distance() -> None:
    # uname's rules lie between the search and those of bind and listen. They grow by one instruction at a time, so that
    # for every jump the target is once just near enough and once just too far. With accept the search has a branch
    # whose targets are both that far.
    others = [Rule("bind", (AnyBit(0, 1), AnyBit(0, 2))), Rule("listen", (AnyBit(0, 1), AnyBit(0, 4)))]
    for length in range(200, 300):
        far = [Rule("uname", (Equals(1, 1 << 16 | value, 0xFFFF_FFFF),)) for value in range(length // 2)]
        far += [Rule("uname", (Equals(1, 0, 0xFFFF),))] * (length % 2)
        program = Program.load(compile_filter(Subscription.of(["accept", *others, *far]), X86_64, ACTION))
        for call, intercepted in (("bind", (3, 7)), ("listen", (5, 7))):
            for argument in range(8):
                expected = ACTION if argument in intercepted else RET_ALLOW
                assert answer(program, X86_64, X86_64.numbers[call], (argument, 0, 0, 0, 0, 0)) == expected
        for value in range(length // 2 + 1):
            expected = ACTION if value < length // 2 or value == 0 else RET_ALLOW
            assert answer(program, X86_64, X86_64.numbers["uname"], (0, 1 << 16 | value, 0, 0, 0, 0)) == expected


def test_a_call_that_nobody_subscribed_to_costs_few_instructions() -> None:
    subscribed = [name for name, kinds in X86_64.arguments.items() if name not in ("read", "write", "close")]
    assert len(subscribed) > 90
    rules = [Rule(name, (NonZero(1),)) for name in subscribed]
    program = Program.load(compile_filter(Subscription.of(rules), X86_64, ACTION))
    others = [number for name, number in X86_64.numbers.items() if name not in subscribed]
    steps = [program.run(seccomp_data(number, X86_64.audit_arch, (0,) * 6)).steps for number in others]
    assert max(steps) <= 4 + 8  # load and check the architecture, load the number, answer; log2 of 2 * 100 ranges


def test_a_call_of_another_architecture_is_left_out() -> None:
    assert compile_filter(Subscription.of(["open", "connect"]), AARCH64, ACTION) == compile_filter(
        Subscription.of(["connect"]), AARCH64, ACTION
    )


def test_a_rule_without_tests_makes_the_others_needless() -> None:
    assert compile_filter(Subscription.of(["openat", Rule("openat", (NonZero(1),))]), X86_64, ACTION) == compile_filter(
        Subscription.of(["openat"]), X86_64, ACTION
    )


def test_a_call_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="conect"):
        compile_filter(Subscription.of(["conect"]), X86_64, ACTION)


@pytest.mark.parametrize("call", REFUSED_CALLS)
def test_a_call_that_always_fails_cannot_be_subscribed(call: str) -> None:
    with pytest.raises(ValueError, match=f"{call} cannot be intercepted"):
        compile_filter(Subscription.of([call]), X86_64, ACTION)


def test_a_program_that_the_kernel_would_refuse_is_refused() -> None:
    rules = [Rule("connect", (Equals(0, value),)) for value in range(2000)]
    with pytest.raises(ValueError, match="the kernel takes 4096"):
        compile_filter(Subscription.of(rules), X86_64, ACTION)


def test_the_program_does_not_depend_on_the_order_of_a_set() -> None:
    source = (
        "from mirrord_syscalls.abi import X86_64\n"
        "from mirrord_syscalls.bpf import compile_filter\n"
        "from mirrord_syscalls.subscription import *\n"
        "tests = [Equals(index, value) for index in range(3) for value in range(3)]\n"
        "rules = [Rule(call, (test,)) for call in ('socket', 'bind', 'connect') for test in tests]\n"
        "print(compile_filter(Subscription.of(rules), X86_64, 1).hex())\n"
    )
    programs = {
        subprocess.run(
            [sys.executable, "-c", source],
            check=True,
            capture_output=True,
            env={"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(programs) == 1


def test_the_socket_filter_drops_every_packet() -> None:
    program = Program.load(socket_filter_drop_all())
    assert program.run(b"any packet").answer == 0
    assert len(program.instructions) == 1


@every_abi
def test_constants_are_those_of_the_kernel_headers(abi: Abi, tmp_path: Path) -> None:
    claims = [
        f"SECCOMP_RET_TRACE == {RET_TRACE}u",
        f"SECCOMP_RET_USER_NOTIF == {RET_USER_NOTIF}u",
        f"SECCOMP_RET_ERRNO == {RET_ERRNO}u",
        f"SECCOMP_RET_ALLOW == {RET_ALLOW}u",
        "sizeof(struct sock_filter) == 8",
        "sizeof(struct seccomp_data) == 64",
        "offsetof(struct seccomp_data, args) == 16",
        "BPF_MAXINSNS == 4096",
        "(BPF_LD | BPF_W | BPF_ABS) == 0x20",
        "(BPF_LD | BPF_H | BPF_ABS) == 0x28",
        "(BPF_ALU | BPF_AND | BPF_K) == 0x54",
        "(BPF_JMP | BPF_JA) == 0x05",
        "(BPF_JMP | BPF_JEQ | BPF_K) == 0x15",
        "(BPF_JMP | BPF_JGE | BPF_K) == 0x35",
        "(BPF_JMP | BPF_JSET | BPF_K) == 0x45",
        "(BPF_RET | BPF_K) == 0x06",
    ]
    check_in_c(abi.name, ["stddef.h", "linux/filter.h", "linux/seccomp.h"], claims, tmp_path)
