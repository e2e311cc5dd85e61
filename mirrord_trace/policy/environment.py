"""Which environment the process gets: the target's variables over the local ones.

Names and values are bytes, because nothing says that they are text. Some variables describe the machine that the
program runs on (where its interpreter, its home and its packages are) and would break it if they came from elsewhere:
these stay local unless the user names them. Patterns are wildcards: `*` any bytes, `?` one byte.

What else the user said comes after that, in mirrord's order: a file of variables, then `mapping`, which knows only what
the target and the file say, then `override`; all of this lies over the local variables, and at last some are unset.

The list is mirrord's (3.250). mirrord's documentation promises that `include` brings such a variable back, which its
code does not do; here it does. A bare `*` names nothing in particular and therefore brings nothing back.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

STAYS_LOCAL = (
    "PATH",
    "HOME",
    "HOMEPATH",
    "PWD",
    "CLASSPATH",
    "CATALINA_HOME",
    "JAVA_EXE",
    "JAVA_HOME",
    "JAVA_TOOL_OPTIONS",
    "_JAVA_OPTIONS",
    "PYTHONPATH",
    "RUBYLIB",
    "RUBYOPT",
    "GEM_HOME",
    "GEM_PATH",
    "GOPATH",
    "GOMODCACHE",
    "DOTNET_EnableDiagnostics",
    "DOTNET_STARTUP_HOOKS",
    "BUNDLER_VERSION",
    "BUNDLER_ORIG_*",
    "BUNDLE_APP_CONFIG",
    "BUNDLE_BIN_PATH",
    "BUNDLE_FORCE_RUBY_PLATFORM",
    "BUNDLE_GEMFILE",
    "BUNDLE_GEM_PATH",
    "BUNDLE_PATH",
    "BUNDLE_WITHOUT",
    "MIRRORD_LOG",
    "RUST_LOG",
)


OF_AWS_HERE = frozenset((b"AWS_PROFILE", b"AWS_DEFAULT_PROFILE", b"AWS_CONFIG_FILE", b"AWS_SHARED_CREDENTIALS_FILE"))
"""What makes a program act as this machine's user towards AWS, by way of files that are here."""

_WILDCARDS = {ord("*"): b".*", ord("?"): b"."}


def _pattern(wildcards: Iterable[str], flags: re.RegexFlag = re.NOFLAG) -> re.Pattern[bytes]:
    """A pattern that fully matches what any of the wildcards matches; without wildcards it matches nothing."""
    alternatives = [
        b"".join(_WILDCARDS.get(byte, re.escape(bytes([byte]))) for byte in os.fsencode(wildcard))
        for wildcard in wildcards
    ]
    return re.compile(b"|".join(alternatives) if alternatives else rb"(?!)", re.DOTALL | flags)


_STAYS_LOCAL = _pattern(STAYS_LOCAL)


class Rules(Protocol):
    """What the user said: see `mirrord_trace.config.EnvironmentConfiguration`, which is one."""

    @property
    def include(self) -> Sequence[str]:
        """Only these of the target's; none means all."""

    @property
    def exclude(self) -> Sequence[str]:
        """All of the target's but these."""

    @property
    def from_file(self) -> Mapping[bytes, bytes]:
        """What the user's file of variables says."""

    @property
    def mapping(self) -> Sequence[tuple[re.Pattern[str], str]]:
        """What variables of the target and the file are set to; the first that finds something in the name."""

    @property
    def override(self) -> Mapping[str, str]:
        """Variables and their values, whatever was said before."""

    @property
    def unset(self) -> Sequence[str]:
        """What the process does not get, in upper and lower case alike."""


def process_environment(
    local: Mapping[bytes, bytes], target: Mapping[bytes, bytes], rules: Rules
) -> dict[bytes, bytes]:
    """The environment of the process: `local`, and over it what the user wants of `target`, and said besides."""
    over = {**_wanted(target, rules.include, rules.exclude), **rules.from_file}
    if rules.mapping:
        over = {name: _mapped(name, value, rules.mapping) for name, value in over.items()}
    over |= {name.encode(): value.encode() for name, value in rules.override.items()}
    merged = {**local, **over}
    if rules.unset:
        unset = _pattern(rules.unset, re.IGNORECASE)
        merged = {name: value for name, value in merged.items() if not unset.fullmatch(name)}
    return merged


def _wanted(target: Mapping[bytes, bytes], include: Sequence[str], exclude: Sequence[str]) -> dict[bytes, bytes]:
    """Those that match `include` (empty: all) and do not match `exclude`.

    Those in `STAYS_LOCAL` are wanted only when a pattern of `include` other than `*` matches them.
    """
    included = _pattern(include or ("*",))
    named = _pattern(wildcard for wildcard in include if wildcard.strip("*"))
    excluded = _pattern(exclude)

    def wanted(name: bytes) -> bool:
        if excluded.fullmatch(name):
            return False
        if _STAYS_LOCAL.fullmatch(name):
            return named.fullmatch(name) is not None
        return included.fullmatch(name) is not None

    return {name: value for name, value in target.items() if wanted(name)}


def _mapped(name: bytes, value: bytes, mapping: Sequence[tuple[re.Pattern[str], str]]) -> bytes:
    text = os.fsdecode(name)
    return next((replacing.encode() for pattern, replacing in mapping if pattern.search(text)), value)
