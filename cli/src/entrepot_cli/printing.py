"""Prints what the API answered: a table for people, JSON and ids for programs."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from entrepot_cli.session import Output

UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
STEP = 1024


class Column(Struct, frozen=True):
    """`path` reads into nested objects: "error.code"."""

    title: str
    path: str
    is_bytes: bool = False

    def text(self, row: Mapping[str, Any]) -> str:
        value: Any = row
        for part in self.path.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is None or value == "":
            return "-"
        if self.is_bytes:
            return human_bytes(int(value))
        if isinstance(value, list | tuple):
            return ",".join(map(str, value)) or "-"
        return printable(str(value).lower() if isinstance(value, bool) else str(value))


def columns(*specs: str) -> tuple[Column, ...]:
    """From "TITLE=path" or "TITLE=path:bytes"."""
    made = []
    for spec in specs:
        title, _, path = spec.partition("=")
        path, _, kind = path.partition(":")
        made.append(Column(title, path, kind == "bytes"))
    return tuple(made)


def show_many(rows: Iterable[Mapping[str, Any]], shown: Sequence[Column], output: Output) -> None:
    if output == "jsonl":  # as they come: a long list may be followed
        for row in rows:
            print(json.dumps(row), flush=True)
    elif output == "json":
        print(json.dumps(list(rows), indent=2))
    elif output == "name":
        for row in rows:
            print(row["id"])
    else:
        print_table(list(rows), shown)


def show_one(row: Mapping[str, Any], shown: Sequence[Column], output: Output) -> None:
    if output == "json":
        print(json.dumps(row, indent=2))
    else:
        show_many([row], shown, output)


def print_table(rows: Sequence[Mapping[str, Any]], shown: Sequence[Column]) -> None:
    cells = [[column.title for column in shown]]
    cells += [[column.text(row) for column in shown] for row in rows]
    widths = [max(len(line[index]) for line in cells) for index in range(len(shown))]
    for line in cells:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        )


def human_bytes(count: int) -> str:
    value = float(count)
    for unit in UNITS:
        if abs(value) < STEP or unit == UNITS[-1]:
            break
        value /= STEP
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def printable(text: str) -> str:
    """Nothing from afar moves the cursor or colours the terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)


def tell(text: str) -> None:
    """A word for people, on stderr: stdout is for results."""
    print(printable(text), file=sys.stderr, flush=True)
