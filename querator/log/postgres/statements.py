"""The SQL of this package: one statement a file, read once."""

import functools
from importlib.resources import files

from psycopg import sql

_FOLDER = files("querator.log.postgres") / "sql"


@functools.cache
def text(name: str) -> str:
    """The statement ``sql/<name>.sql`` without its comment lines."""
    lines = (_FOLDER / f"{name}.sql").read_text("utf-8").splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith("--"))


@functools.cache
def statement(name: str, *, bucket: int | None = None, identity: str | None = None) -> bytes:
    """A statement ready to send: ``bucket`` names the bucket's table, ``identity`` the expression's file."""
    parts: dict[str, sql.Composable] = {}
    if bucket is not None:
        parts["bucket"] = bucket_table(bucket)
    if identity is not None:
        parts["identity"] = sql.SQL(text(identity))
    template = sql.SQL(text(name))
    return (template.format(**parts) if parts else template).as_bytes(None)


def bucket_table(bucket: int) -> sql.Identifier:
    return sql.Identifier("querator", f"log_{bucket}")


def migrations() -> list[tuple[int, str, str]]:
    """(number, name, script) of every migration there is, in order."""
    entries = sorted((_FOLDER / "migrations").iterdir(), key=lambda entry: entry.name)
    return [
        (int(entry.name[:4]), entry.name.removesuffix(".sql"), entry.read_text("utf-8"))
        for entry in entries
        if entry.name.endswith(".sql")
    ]
