"""How commands speak: tables for people at a terminal, plain lines in a pipe, JSON on request."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import click

from allsource.storage.model.printable import printable, printable_lines


def say(line: str) -> None:
    """One line for people on standard output; what is not printable in it is escaped."""
    click.echo(printable(line))


def echo(text: str) -> None:
    """Lines that are fit to be shown as they are: our own words, or made printable piece by piece."""
    click.echo(text)


def echo_json(value: Any) -> None:
    """One JSON document on one line of standard output, in pure ASCII: no reader has to ask how it is
    encoded, and no terminal obeys it."""
    click.echo(json.dumps(value))


def note(text: str) -> None:
    """Progress or a complaint on standard error, so that standard output holds results alone."""
    click.echo(printable_lines(text), err=True)


def echo_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table: drawn by rich on a terminal, else aligned plain lines below a line of column names."""
    if sys.stdout.isatty():
        from rich.console import Console

        Console().print(rich_table(title, columns, rows))
        return
    if title:
        say(title)
    for line in plain_table(columns, rows):
        say(line)


def rich_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Any:
    """The rich table; numbers stand to the right."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(title=printable(title) or None, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for number, name in enumerate(columns):
        cells = [row[number] for row in rows]
        table.add_column(name, justify="right" if cells and all(map(_is_number, cells)) else "left")
    for row in rows:
        table.add_row(*[Text(printable(cell)) for cell in row])  # Text: no cell is ever read as markup
    return table


def plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines whose columns start below each other, two spaces apart; cells are printable, on one line."""
    cells = [list(columns), *[[printable(" ".join(cell.split())) for cell in row] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The table as the documents hold it."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _is_number(cell: str) -> bool:
    return cell.replace(",", "").replace(".", "", 1).isdigit()
