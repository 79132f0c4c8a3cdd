"""What the terminal shows: tables, errors, and a narrator for long work."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType

import polars as pl
from rich.console import Console
from rich.panel import Panel
from rich.status import Status
from rich.table import Table as RichTable
from rich.text import Text

from dure.errors import DureError
from dure.language import Words

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


def show_error(error: DureError) -> None:
    """What happened, why, what to do now."""
    what, why, remedy = error.parts()
    body = Text.assemble((what, "bold"), "\n", why, "\n", ("→ ", "bold green"), remedy)
    errors.print(Panel(body, title=error.code(), title_align="left", border_style="red", expand=False))


def show_remark(words: Words) -> None:
    console.print(Text.assemble(("! ", "bold yellow"), words.say()))


def show_table(title: str, frame: pl.DataFrame, withheld: Mapping[tuple[int, str], str]) -> None:
    """A released table: numbers right-aligned, suppressed cells with their reason."""
    table = RichTable(title=title, title_justify="left", title_style="bold", header_style="dim", box=None)
    for name, dtype in frame.schema.items():
        table.add_column(name, justify="right" if dtype.is_numeric() else "left", overflow="fold")
    for place, row in enumerate(frame.rows()):
        cells = [withheld.get((place, name), _shown(value)) for name, value in zip(frame.columns, row)]
        table.add_row(*cells)
    console.print(table)
    console.print()


def _shown(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


class Narrator:
    """Headings and finished lines stay; what is being worked on spins on the last line."""

    def __init__(self) -> None:
        self._status: Status = console.status("", spinner="dots")
        self._number = 0

    def __enter__(self) -> Narrator:
        self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._status.stop()

    def heading(self, words: Words) -> None:
        self._number += 1
        console.print(Text(f"\n{self._number}. {words.say()}", style="bold green"))

    def line(self, words: Words) -> None:
        console.print(Text.assemble(("   ✓ ", "green"), words.say()))

    def working(self, words: Words) -> None:
        self._status.update(Text(words.say(), style="dim"))
