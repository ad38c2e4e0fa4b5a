"""Everything that the command prints, through one object: for people, or JSON with --json.

Invariants: with --json standard output is exactly one JSON object; errors for people go to standard
error as one sentence and a remedy. Field names are documented in docs/cli.md.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table
from rich.text import Text

from curve_py.errors import CurveError

PROGRAM = "curve"


class Output:
    """One per command."""

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json
        # Into a pipe nothing is folded.
        width = None if sys.stdout.isatty() else 240
        self._out = Console(highlight=False, soft_wrap=True, width=width)
        self._err = Console(stderr=True, highlight=False, soft_wrap=True)

    def result(self, data: Mapping[str, Any], *sentences: str) -> None:
        """The result of a verb: `data` with --json, the sentences without."""
        if self.as_json:
            print(json.dumps(data, ensure_ascii=False), flush=True)
        else:
            for sentence in sentences:
                self._out.print(Text(sentence))

    def table(
        self,
        data: Mapping[str, Any],
        columns: Sequence[str],
        rows: Sequence[Sequence[object]],
        empty: str = "",
        title: str = "",
    ) -> None:
        """A list: `data` with --json, a table without. Columns that start with # are numbers."""
        if self.as_json:
            self.result(data)
            return
        if not rows and empty:
            self._out.print(Text(empty))
            return
        table = Table(title=title or None, title_justify="left", header_style="bold")
        for column in columns:
            table.add_column(
                column.removeprefix("#"),
                justify="right" if column.startswith("#") else "left",
                overflow="fold",
            )
        for row in rows:
            table.add_row(*(Text(str(cell)) for cell in row))
        self._out.print(table)

    def note(self, sentence: str) -> None:
        """Something on the way; not part of the result."""
        if not self.as_json:
            self._err.print(Text(sentence))

    def error(self, error: CurveError) -> None:
        """One sentence and the remedy; with --json also as an object."""
        if self.as_json:
            fields = {"kind": str(error.kind), "message": error.message, "remedy": error.remedy}
            print(json.dumps({"error": fields}, ensure_ascii=False), flush=True)
        self._err.print(Text(f"{PROGRAM}: {error.message}"))
        if error.remedy:
            self._err.print(Text(f"{PROGRAM}: {error.remedy}"))

    @contextlib.contextmanager
    def progress(self) -> Iterator[Callable[[str, int, int], None]]:
        """A bar per step of long work: call the value with (step, done, total)."""
        if self.as_json or not sys.stderr.isatty():
            yield lambda step, done, total: None
            return
        columns = (
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
        )
        with Progress(*columns, console=self._err) as bars:
            tasks: dict[str, Any] = {}

            def update(step: str, done: int, total: int) -> None:
                if step not in tasks:
                    tasks[step] = bars.add_task(step, total=total)
                bars.update(tasks[step], completed=done, total=total)

            yield update
