"""Templates in configuration files, as mirrord documents them: `{{ get_env(name="USER", default="me") }}`.

mirrord renders a file with Tera before it reads it; Jinja has the same syntax for what mirrord documents (expressions,
filters, `if`, `for`, comments). The sandbox keeps a file from reaching anything but its text. Lines stay where they are
as long as no block drops or repeats some, so later faults name the right ones.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from mirrord_trace.config.values import Fault

_MARKS: Final = ("{{", "{%", "{#")
_FILE: Final = "<template>"
"""What Jinja calls a template without a name."""


def rendered(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """The text with its templates replaced. Raises Fault that names the line."""
    if not any(mark in text for mark in _MARKS):
        return text
    # Loaded here because few files need it.
    from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def get_env(name: str, default: object = None) -> object:
        found = environment.get(name, default)
        if found is None:
            raise Fault(f'the variable {name} is not set; get_env takes a default="..." for that case')
        return found

    sandbox = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
    sandbox.globals["get_env"] = get_env
    try:
        return sandbox.from_string(text).render()
    except TemplateSyntaxError as error:
        raise Fault(f"line {error.lineno}: in the template: {error.message}") from error
    except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise Fault(f"line {_line_of(error)}: in the template: {error}") from error


def _line_of(error: Exception) -> int:
    """Where in the template it was raised: Jinja makes the lines of its code those of the template."""
    line, trace = 1, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == _FILE:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
