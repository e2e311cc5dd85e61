"""What commands print on stdout: tables, with rules and colours on a terminal, plain columns elsewhere."""

import shutil
from collections.abc import Iterable, Sequence
from datetime import datetime

from mirrord_trace.cli.output import is_terminal, print_text
from mirrord_trace.cli.progress import printable

_UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, faults: Sequence[bool] = ()) -> None:
    """Print rows of texts below the names of their columns. A row that `faults` marks stands out on a terminal."""
    cells = [[printable(text) for text in row] for row in rows]
    if is_terminal():
        print_text(_coloured(columns, cells, faults))
        return
    shown = [[name.upper().replace(" ", "-") for name in columns], *cells]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in shown]
    print_text("\n".join(lines))


def _coloured(columns: Sequence[str], rows: Sequence[Sequence[str]], faults: Sequence[bool]) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    for number, row in enumerate(rows):
        is_fault = number < len(faults) and faults[number]
        table.add_row(*map(Text, row), style="red" if is_fault else None)
    console = Console(width=shutil.get_terminal_size().columns)
    with console.capture() as capture:
        console.print(table, end="")
    return capture.get()


def age(since: datetime, now: datetime) -> str:
    """How long something has been there, in its largest whole unit, as kubectl shows it: "3d", "5m"."""
    seconds = max(0, int((now - since).total_seconds()))
    return next((f"{seconds // size}{unit}" for unit, size in _UNITS if seconds >= size), "0s")
