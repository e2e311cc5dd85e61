"""Which configuration file is read where none is named: the one in `.mirrord`, as mirrord's extensions find it.

Its name ends in `mirrord.json`, `.toml`, `.yaml` or `.yml`: `mirrord.json`, `steal.mirrord.json`. Only one may be
there, since which of several is meant is not for us to guess.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from mirrord_trace.errors import UsageFailure

_FOLDER: Final = ".mirrord"
_ENDINGS: Final = tuple(f"mirrord.{kind}" for kind in ("json", "toml", "yaml", "yml"))


def found_file(directory: Path) -> Path | None:
    """The file of a working directory, if there is one. Raises UsageFailure if there are several."""
    folder = directory / _FOLDER
    try:
        found = sorted(path for path in folder.iterdir() if path.name.endswith(_ENDINGS) and path.is_file())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UsageFailure(f"cannot look for a configuration file in {folder}: {error.strerror}") from error
    if len(found) > 1:
        raise UsageFailure(
            f"several configuration files in {folder}: {', '.join(path.name for path in found)}",
            "Name the one that is meant with -f.",
        )
    return found[0] if found else None
