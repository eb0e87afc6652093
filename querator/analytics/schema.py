"""The schema ``querator`` of an analytics connection: one SQL file an object, its head the documentation.

A head is comment lines: what it is and its name; what it says, for people; an empty line; then a line
for each column or parameter (``name: text``). The texts become comments in the database, and
docs/analytics.md is written from those.

The schema grows by columns, views and macros; what is there keeps its name and meaning within a version.
"""

import re
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Final

import attrs
import msgspec

from querator.analytics.manifest import Manifest
from querator.analytics.rows import COLUMNS
from querator.analytics.warehouse import Connection, file_list, quoted
from querator.core.invariants import check

SCHEMA_VERSION: Final = 1

_HEAD: Final = re.compile(r"(VIEW|MACRO|TABLE MACRO) (\w+)")
_FIELD: Final = re.compile(r"(\w+): (.+)")


@attrs.frozen
class SchemaObject:
    """A view or a macro."""

    kind: str
    """VIEW | MACRO | TABLE MACRO."""
    name: str
    signature: str
    text: str
    fields: tuple[tuple[str, str], ...]
    """(column or parameter, what it is)."""
    sql: str


def parse_object(source: str) -> SchemaObject:
    """An object from its file."""
    lines = source.splitlines()
    size = next(index for index, line in enumerate(lines) if not line.startswith("--"))
    head = [line.removeprefix("--").strip() for line in lines[:size]]
    match = _HEAD.match(head[0])
    check(match is not None, f"not the head of a schema object: {head[0]}")
    kind, name = ("", "") if match is None else match.groups()
    signature = head[0].removeprefix(kind).strip()
    cut = head.index("") if "" in head else len(head)
    fields = tuple((found[1], found[2]) for line in head[cut:] if (found := _FIELD.match(line)) is not None)
    return SchemaObject(kind, name, signature, " ".join(head[1:cut]), fields, "\n".join(lines[size:]))


def load_objects() -> list[SchemaObject]:
    """All of them, in the order in which they can be created."""
    folder = resources.files("querator.analytics") / "sql"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return [parse_object((folder / name).read_text()) for name in names]


def create_schema(connection: Connection, directory: Path, manifest: Manifest) -> None:
    """Create the schema over the files of an archive."""
    connection.execute("CREATE SCHEMA querator")
    connection.execute(
        "CREATE TABLE querator.partitions (partition BIGINT, queue VARCHAR, index_in_queue BIGINT,"
        " namespace VARCHAR, created_at TIMESTAMP, deleted_at TIMESTAMP, settings JSON)"
    )
    follow_manifest(connection, directory, manifest)
    _comment_on_sources(connection)
    connection.execute(f"CREATE VIEW querator.schema_version AS SELECT {SCHEMA_VERSION} AS version")
    connection.execute("COMMENT ON VIEW querator.schema_version IS 'The version of this schema.'")
    for made in load_objects():
        connection.execute(made.sql)
        kind = "MACRO TABLE" if made.kind == "TABLE MACRO" else made.kind
        connection.execute(f"COMMENT ON {kind} querator.{made.name} IS {quoted(made.text)}")
        if made.kind == "VIEW":
            _comment(connection, made.name, made.fields)


def view_names() -> list[str]:
    """What can be exported as a whole."""
    return [made.name for made in load_objects() if made.kind == "VIEW"] + ["runs", "payloads", "partitions"]


def follow_manifest(connection: Connection, directory: Path, manifest: Manifest) -> None:
    """Have the schema that is there read what the manifest names; all else is made from that.

    A tenth of the work of another connection, for who has one open. Comments on what is replaced are lost.
    """
    _fill_partitions(connection, manifest)
    _create_runs(connection, [directory / part.file for part in manifest.parts])
    _create_payloads(connection, [directory / part.file for part in manifest.payload_parts])


def _comment(connection: Connection, name: str, fields: Iterable[tuple[str, str]]) -> None:
    for field, text in fields:
        connection.execute(f"COMMENT ON COLUMN querator.{name}.{field} IS {quoted(text)}")


PARTITION_FIELDS: Final = (
    ("partition", "the partition, globally"),
    ("queue", "the queue it belongs to"),
    ("index_in_queue", "which of the queue's partitions it is, from 0"),
    ("namespace", "the queue's namespace"),
    ("created_at", "when the queue was created"),
    ("deleted_at", "when the queue was deleted, if it was"),
    ("settings", "what the queue's partitions decide by, as JSON"),
)


def _fill_partitions(connection: Connection, manifest: Manifest) -> None:
    connection.execute("TRUNCATE querator.partitions")
    for queue in manifest.queues:
        for index, partition in enumerate(queue.partitions):
            connection.execute(
                "INSERT INTO querator.partitions VALUES"
                " ($1, $2, $3, $4, make_timestamp($5::BIGINT), make_timestamp(nullif($6::BIGINT, 0)), $7)",
                [
                    partition,
                    queue.name,
                    index,
                    queue.namespace,
                    queue.created_at,
                    queue.deleted_at,
                    _json(queue.settings),
                ],
            )


def _json(settings: dict[str, object]) -> str:
    return msgspec.json.encode(settings).decode()


def _create_runs(connection: Connection, files: list[Path]) -> None:
    names = ", ".join(column.restored for column in COLUMNS)
    if files:
        source = f"read_parquet({file_list(files)}, union_by_name = true, hive_partitioning = false)"
    else:
        empty = ", ".join(f"NULL::{column.sql_type} AS {column.name}" for column in COLUMNS)
        source = f"(SELECT {empty} WHERE false)"
    connection.execute(
        "CREATE OR REPLACE VIEW querator.runs AS"
        f" SELECT coalesce(p.queue, 'partition ' || r.partition) AS queue, {names}"
        f" FROM {source} AS r LEFT JOIN querator.partitions AS p ON p.partition = r.partition"
    )


PAYLOAD_FIELDS: Final = (
    ("partition", "the partition, globally"),
    ("item", "number of the item in its partition"),
    ("position", "the record that the payload is in"),
    ("payload", "its bytes"),
)


def _create_payloads(connection: Connection, files: list[Path]) -> None:
    source = (
        f"read_parquet({file_list(files)}, union_by_name = true, hive_partitioning = false)"
        if files
        else "(SELECT NULL::BIGINT AS partition, NULL::BIGINT AS item, NULL::BIGINT AS position,"
        " NULL::BLOB AS payload WHERE false)"
    )
    connection.execute(
        f"CREATE OR REPLACE VIEW querator.payloads AS SELECT partition, item, position, payload FROM {source}"
    )


def _comment_on_sources(connection: Connection) -> None:
    connection.execute("COMMENT ON TABLE querator.partitions IS 'Which partition belongs to which queue.'")
    _comment(connection, "partitions", PARTITION_FIELDS)
    connection.execute(
        "COMMENT ON VIEW querator.runs IS 'What is stored, with all moments: one row for consecutive items"
        " that one event did the same to. Counting sums `items`; `events` has a row for each of them.'"
    )
    fields = [("queue", "the queue's name")]
    _comment(connection, "runs", [*fields, *((column.name, column.comment) for column in COLUMNS)])
    connection.execute(
        "COMMENT ON VIEW querator.payloads IS 'Payloads, where they were exported: they stay out unless"
        " asked for.'"
    )
    _comment(connection, "payloads", PAYLOAD_FIELDS)
