"""docs/analytics.md, written from the comments of the schema: ``python -m querator.analytics.docs``."""

import sys
import tempfile
from importlib import resources
from pathlib import Path

from querator.analytics.connecting import connect
from querator.analytics.manifest import MANIFEST, Manifest, encode_manifest
from querator.analytics.schema import SCHEMA_VERSION, SchemaObject, load_objects
from querator.analytics.warehouse import Connection


def write_page() -> str:
    """The whole page."""
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / MANIFEST).write_bytes(encode_manifest(Manifest()))
        connection = connect(name)
        try:
            return _page(connection)
        finally:
            connection.close()


def _page(connection: Connection) -> str:
    objects = load_objects()
    template = (resources.files("querator.analytics") / "docs.md").read_text()
    views = [made for made in objects if made.kind == "VIEW"]
    macros = [made for made in objects if made.kind == "TABLE MACRO"]
    tables = ["partitions", *(made.name for made in views), "runs", "payloads"]
    parts = [
        template.replace("VERSION", str(SCHEMA_VERSION)).rstrip(),
        "",
        "## Macros",
        "",
        (
            "Parameters that have a default are best given by name: "
            "`FROM backlog('mail', width := INTERVAL 5 MINUTE)`."
        ),
        "",
    ]
    for made in macros:
        parts += _macro(connection, made)
    parts += ["## Views and tables", ""]
    for table in tables:
        parts += _table(connection, table)
    return "\n".join(parts).rstrip() + "\n"


def _macro(connection: Connection, made: SchemaObject) -> list[str]:
    required = {"item_history": "(1, 1)"}.get(made.name, "(NULL)")
    columns = connection.execute(f"DESCRIBE FROM querator.{made.name}{required}").fetchall()
    comment = connection.execute(
        "SELECT any_value(comment) FROM duckdb_functions()"
        " WHERE schema_name = 'querator' AND function_name = $1",
        [made.name],
    ).fetchone()
    return [
        f"### `{made.signature}`",
        "",
        str(comment[0]) if comment is not None else "",
        "",
        *(f"* `{name}`: {text}" for name, text in made.fields),
        "",
        "Columns: " + ", ".join(f"`{column[0]}`" for column in columns) + ".",
        "",
    ]


def _table(connection: Connection, name: str) -> list[str]:
    comment = connection.execute(
        "SELECT comment FROM duckdb_views() WHERE schema_name = 'querator' AND view_name = $1"
        " UNION ALL SELECT comment FROM duckdb_tables() WHERE schema_name = 'querator' AND table_name = $1",
        [name],
    ).fetchone()
    columns = connection.execute(
        "SELECT column_name, data_type, comment FROM duckdb_columns()"
        " WHERE schema_name = 'querator' AND table_name = $1 ORDER BY column_index",
        [name],
    ).fetchall()
    return [
        f"### `{name}`",
        "",
        str(comment[0]) if comment is not None else "",
        "",
        "| column | type | what it is |",
        "|---|---|---|",
        *(f"| `{column}` | {kind} | {text or ''} |" for column, kind, text in columns),
        "",
    ]


if __name__ == "__main__":
    sys.stdout.write(write_page())
