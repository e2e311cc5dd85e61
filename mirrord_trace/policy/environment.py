"""Which environment the process gets: the target's variables over the local ones.

Names and values are bytes, because nothing says that they are text. Some variables describe the machine that the
program runs on (where its interpreter, its home and its packages are) and would break it if they came from elsewhere:
these stay local unless the user names them. Patterns are wildcards: `*` any bytes, `?` one byte.

The list is mirrord's (3.250). mirrord's documentation promises that `include` brings such a variable back, which its
code does not do; here it does. A bare `*` names nothing in particular and therefore brings nothing back.
"""

import os
import re
from collections.abc import Iterable, Mapping

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


_WILDCARDS = {ord("*"): b".*", ord("?"): b"."}


def _pattern(wildcards: Iterable[str]) -> re.Pattern[bytes]:
    """A pattern that fully matches what any of the wildcards matches; without wildcards it matches nothing."""
    alternatives = [
        b"".join(_WILDCARDS.get(byte, re.escape(bytes([byte]))) for byte in os.fsencode(wildcard))
        for wildcard in wildcards
    ]
    return re.compile(b"|".join(alternatives) if alternatives else rb"(?!)", re.DOTALL)


_STAYS_LOCAL = _pattern(STAYS_LOCAL)


def process_environment(
    local: Mapping[bytes, bytes],
    target: Mapping[bytes, bytes],
    *,
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
) -> dict[bytes, bytes]:
    """The environment of the process: `local`, and over it those variables of `target` that are wanted.

    Wanted are the ones that match `include` (empty: all) and do not match `exclude`. Those in `STAYS_LOCAL` are wanted
    only when a pattern of `include` other than `*` matches them.
    """
    include = tuple(include)
    included = _pattern(include or ("*",))
    named = _pattern(wildcard for wildcard in include if wildcard.strip("*"))
    excluded = _pattern(exclude)

    def wanted(name: bytes) -> bool:
        if excluded.fullmatch(name):
            return False
        if _STAYS_LOCAL.fullmatch(name):
            return named.fullmatch(name) is not None
        return included.fullmatch(name) is not None

    return {**local, **{name: value for name, value in target.items() if wanted(name)}}
