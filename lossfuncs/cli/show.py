"""Text for people: columns, emphasis, progress. Colours and bars only on a terminal, and none with NO_COLOR."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, TextIO

DELAY = 0.5  # seconds that a command may take before it shows progress


def colours(stream: TextIO | None) -> bool:
    """Whether that stream is a terminal that wants colours."""
    return bool(stream and stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb")


def bold(text: str) -> str:
    """A heading."""
    return f"\x1b[1m{text}\x1b[0m" if colours(sys.stdout) else text


def dim(text: str) -> str:
    """What matters less."""
    return f"\x1b[2m{text}\x1b[0m" if colours(sys.stdout) else text


def red(text: str) -> str:
    """What is wrong."""
    return f"\x1b[31m{text}\x1b[0m" if colours(sys.stdout) else text


def columns(rows: Sequence[Sequence[str]], right: Sequence[int] = (), indent: str = "  ") -> list[str]:
    """Lines of aligned columns; those in `right` to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = (
        (cell.rjust(width) if i in right else cell.ljust(width) for i, (cell, width) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    )
    return [(indent + "  ".join(cells)).rstrip() for cells in aligned]


def results(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print names, numbers and remarks, with a line free above and below: a table of rich's on a terminal, aligned columns elsewhere."""
    if not colours(sys.stdout) or not importlib.util.find_spec("rich"):
        print("", *columns([header, *rows], right=[1]), "", sep="\n")
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for i, title in enumerate(header):
        style = "bold cyan" if i == 1 else "dim" if i and not title else ""
        table.add_column(title, justify="right" if i == 1 else "left", style=style, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(markup=False, highlight=False).print(table)


class Progress:
    """How much is done, and how long the rest will take: on stderr, if that is a terminal and it takes more than a moment."""

    def __init__(self, unit: str, enabled: bool = True) -> None:
        self._unit = unit
        self._enabled = enabled and sys.stderr is not None and sys.stderr.isatty()
        self._shown = time.monotonic() + DELAY
        self._first: tuple[float, int] | None = None  # when so much was done; speed counts from there, after the compiler
        self._bar: Any = None
        self._said = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.say("")
        if self._bar is not None:
            self._bar.stop()

    def say(self, line: str) -> None:
        """Show this until the next."""
        if self._enabled and (line or self._said):
            self._said = bool(line)
            print(f"\r{line:<78}" if line else f"\r{'':78}\r", end="", file=sys.stderr, flush=True)

    def __call__(self, done: int, total: int | None) -> None:
        """So much is done, of so much."""
        now = time.monotonic()
        if self._first is None:
            self._first = now, done
            self.say("")
        began, before = self._first
        if not self._enabled or now < self._shown or done == before:
            return
        self._shown = now + 0.1
        speed = (done - before) / (now - began)
        what = f"{done:,}{f' of {total:,}' if total else ''} {self._unit}, {speed:,.{0 if speed >= 10 else 1}f}/s"
        if not importlib.util.find_spec("rich") or not colours(sys.stderr):
            share, left = (f"{100 * done // total:3} %  ", f", {duration((total - done) / speed)} left") if total else ("", "")
            self.say(share + what + left)
            return
        if self._bar is None:
            self._bar = _bar(total)
        self._bar.update(0, completed=done, total=total, description=what)


def _bar(total: int | None) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    text = TextColumn("{task.description}", markup=False)
    bar = Progress(BarColumn(), TaskProgressColumn(), text, TimeRemainingColumn(compact=True), TextColumn("left"),
                   console=Console(stderr=True), transient=True)  # fmt: skip
    bar.add_task("", total=total)
    bar.start()
    return bar


def duration(seconds: float) -> str:
    """1:05 for 65 seconds, 1:00:00 for an hour."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02.0f}" if hours else f"{minutes}:{seconds:02.0f}"


def count(n: int, noun: str) -> str:
    """3 rows, 1 row."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
