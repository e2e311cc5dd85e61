"""Which calls are intercepted, as a value.

A `Subscription` is a set of rules. A rule names a call and the tests that its arguments must all pass; several rules
for one call are alternatives. `matches` says what a subscription means; `bpf.compile_filter` makes the kernel decide
the same. Arguments are the six 64-bit registers as seccomp(2) shows them: where the kernel takes an `int`, the upper
half may be anything, and a test must mask it out.
"""

from collections.abc import Iterable, Sequence
from typing import Self

import attrs

WORD = 0xFFFF_FFFF_FFFF_FFFF
"""All 64 bits of an argument."""

_ARGUMENT_COUNT = 6


def _is_argument_index(instance: object, attribute: "attrs.Attribute[int]", value: int) -> None:
    if not 0 <= value < _ARGUMENT_COUNT:
        raise ValueError(f"a system call has arguments 0 to 5, not {value}")


def _is_mask(instance: object, attribute: "attrs.Attribute[int]", value: int) -> None:
    if not 0 < value <= WORD:
        raise ValueError(f"a mask has 64 bits of which at least one is set, not {value:#x}")


@attrs.frozen
class NonZero:
    """The argument is not zero: a pointer that is not NULL, for example."""

    index: int = attrs.field(validator=_is_argument_index)

    def holds(self, args: Sequence[int]) -> bool:
        """Say whether a call with these arguments passes."""
        return args[self.index] != 0


@attrs.frozen
class Equals:
    """The argument's bits under `mask` are exactly `value`."""

    index: int = attrs.field(validator=_is_argument_index)
    value: int
    mask: int = attrs.field(default=WORD, validator=_is_mask)

    def __attrs_post_init__(self) -> None:
        """Refuse a test that never holds."""
        if self.value & ~self.mask:
            raise ValueError(f"value {self.value:#x} has bits outside mask {self.mask:#x}: the test would never hold")

    def holds(self, args: Sequence[int]) -> bool:
        """Say whether a call with these arguments passes."""
        return args[self.index] & self.mask == self.value


@attrs.frozen
class AnyBit:
    """At least one of the argument's bits under `mask` is set."""

    index: int = attrs.field(validator=_is_argument_index)
    mask: int = attrs.field(validator=_is_mask)

    def holds(self, args: Sequence[int]) -> bool:
        """Say whether a call with these arguments passes."""
        return args[self.index] & self.mask != 0


ArgumentTest = NonZero | Equals | AnyBit


@attrs.frozen
class Rule:
    """Intercept `call` when all tests hold; without tests, always."""

    call: str
    tests: tuple[ArgumentTest, ...] = ()

    def holds(self, args: Sequence[int]) -> bool:
        """Say whether a call of ours with these arguments is intercepted by this rule."""
        return all(test.holds(args) for test in self.tests)


@attrs.frozen
class Subscription:
    """The calls to intercept: those for which any rule holds."""

    rules: frozenset[Rule] = frozenset()

    @classmethod
    def of(cls, rules: "Iterable[Rule | str]") -> Self:
        """Make a subscription of rules; a bare name stands for every call of that name."""
        return cls(frozenset(Rule(rule) if isinstance(rule, str) else rule for rule in rules))

    def matches(self, call: str, args: Sequence[int]) -> bool:
        """Say whether `call` with these six arguments (each 0 to 2**64-1) is intercepted."""
        return any(rule.call == call and rule.holds(args) for rule in self.rules)

    def union(self, other: "Subscription") -> "Subscription":
        """Return the subscription to what either of the two intercepts."""
        return Subscription(self.rules | other.rules)

    __or__ = union
