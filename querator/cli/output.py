"""What commands print: JSON documents or text, and tables on whatever is at the other end.

Colour only on a terminal and never with NO_COLOR (rich sees to both).
"""

import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.table import Table

from querator.client.durations import format_duration, format_instant

PLAIN_WIDTH: Final = 250
"""Columns of a table that goes to a file or a pipe: nothing is cut off."""


def console(*, stderr: bool = False) -> Console:
    """A console on standard output or error, as they are now."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PLAIN_WIDTH
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False, soft_wrap=True)


def to_json(value: object) -> str:
    """One line. Bytes that are UTF-8 become text, others ``{"base64": ...}``."""
    return msgspec.json.encode(readable(value)).decode()


def readable(value: Any) -> Any:
    """The value with its bytes as text."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return {"base64": value}
    if isinstance(value, dict):
        return {name: readable(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [readable(part) for part in value]
    return value


def print_json(value: object) -> None:
    sys.stdout.write(to_json(value) + "\n")
    sys.stdout.flush()


def print_text(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """To standard error: what is not the result."""
    console(stderr=True).print(text, style="dim")


def complain(text: str) -> None:
    """An error, to standard error."""
    out = console(stderr=True)
    out.print("error:", text, style="red" if out.is_terminal else None)


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = ()
) -> None:
    """A table without lines. ``right``: columns of numbers."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    console().print(table)


def print_fields(fields: Iterable[tuple[str, object]]) -> None:
    """Names and values, a line each."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in fields:
        table.add_row(name, str(value))
    console().print(table)


def preview(payload: bytes | None, width: int = 60) -> str:
    """The beginning of a payload, on one line."""
    if payload is None:
        return ""
    text = payload[: 4 * width].decode(errors="replace")
    line = "".join(character if character.isprintable() else "·" for character in text)
    return line if len(line) <= width and len(payload) <= 4 * width else line[: width - 1] + "…"


__all__ = [
    "complain",
    "console",
    "format_duration",
    "format_instant",
    "note",
    "preview",
    "print_fields",
    "print_json",
    "print_table",
    "print_text",
    "readable",
    "to_json",
]
