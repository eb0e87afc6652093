"""DuckDB: the one module that imports it. Opens connections, writes and reads Parquet.

A connection is in memory and throw-away: Parquet files and their manifest are the durable form, so any
number of processes can read while one writes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import duckdb

from querator.analytics.rows import Gathered, select_list
from querator.errors import QueratorError

Connection: TypeAlias = duckdb.DuckDBPyConnection
DuckDBError: TypeAlias = duckdb.Error
Interrupted: TypeAlias = duckdb.InterruptException
Forbidden: TypeAlias = duckdb.PermissionException
StatementType: TypeAlias = duckdb.StatementType

ROW_GROUP_ROWS: Final = 65_536
"""Small, so that an item's history reads little of a file."""
RECORD_GROUP_ROWS: Final = 2_048
"""The smallest that DuckDB writes: records are read a page at a time."""


class QueryFailed(QueratorError):
    """A question that DuckDB could not answer; the text is its own."""


class QueryRefused(QueryFailed):
    """A question that this connection may not be asked."""

    exit_code = 77


def open_database(*, memory_limit: str = "", threads: int = 0, temporary: Path | None = None) -> Connection:
    """An empty database in memory, set up as all of ours are.

    ``memory_limit`` as DuckDB writes it ("512MB"); 0 threads: all cores; ``temporary``: a directory that is
    made when something does not fit into memory.
    """
    connection = duckdb.connect(":memory:")
    connection.execute("SET TimeZone = 'UTC'")
    # A join of a few hundred buckets with all events must not become a nested loop.
    connection.execute("SET asof_loop_join_threshold = 0")
    connection.execute("SET autoinstall_known_extensions = false")
    connection.execute("SET autoload_known_extensions = false")
    if memory_limit:
        connection.execute("SET memory_limit = $limit", {"limit": memory_limit})
    if temporary is not None:
        connection.execute("SET temp_directory = $directory", {"directory": str(temporary)})
    if threads:
        connection.execute("SET threads = $threads", {"threads": threads})
    return connection


def sandbox(connection: Connection, directories: Sequence[Path]) -> None:
    """From here on the connection reads these directories and nothing else, and its settings are locked.

    In this order: each step would forbid the one before.
    """
    allowed = ", ".join(quoted(f"{directory.resolve()}/") for directory in directories)
    connection.execute(f"SET allowed_directories = [{allowed}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def quoted(text: str) -> str:
    """As an SQL string."""
    return "'" + text.replace("'", "''") + "'"


def write_rows(connection: Connection, rows: Gathered, day: int, path: Path) -> tuple[int, int]:
    """Write the rows of one day (since 1970-01-01) to a Parquet file; how many (rows, item events)."""
    for name, table in rows.tables.items():
        connection.register(name, table)
    try:
        picked = f"FROM {rows.source}"
        if rows.days != [day]:
            start = day * 86_400_000_000
            picked += f" WHERE happened_at >= {start} AND happened_at < {start + 86_400_000_000}"
        counted = connection.execute(f"SELECT count(*), sum(items)::BIGINT {picked}").fetchone()
        order = "" if rows.is_sorted else "ORDER BY partition, position, seq"
        connection.execute(
            f"COPY (SELECT {select_list()} {picked} {order}) TO {quoted(str(path))} ({_PARQUET})"
        )
    finally:
        for name, table in rows.tables.items():
            connection.unregister(name)
            table.forget_readers()
    return (0, 0) if counted is None else (counted[0], counted[1] or 0)


def merge_files(connection: Connection, sources: Sequence[Path], order: str, path: Path) -> int:
    """Write the rows of several Parquet files, in ``order``, into one; how many."""
    files = file_list(sources)
    connection.execute(
        f"COPY (FROM read_parquet({files}, union_by_name = true, hive_partitioning = false) ORDER BY {order})"
        f" TO {quoted(str(path))} ({_PARQUET})"
    )
    return count_rows(connection, [path])


def count_rows(connection: Connection, paths: Sequence[Path]) -> int:
    """From the files' footers.

    Raises:
        duckdb.Error: a file cannot be read.
    """
    found = connection.execute(
        f"SELECT coalesce(sum(num_rows), 0)::BIGINT FROM parquet_file_metadata({file_list(paths)})"
    ).fetchone()
    return 0 if found is None else int(found[0])


def write_payloads(connection: Connection, rows: Sequence[tuple[Any, ...]], path: Path) -> None:
    """(partition, item, position, payload) rows into a Parquet file."""
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE raw_payloads"
        " (partition BIGINT, item BIGINT, position BIGINT, payload BLOB)"
    )
    appender = connection.appender("raw_payloads")
    appender.append_rows(rows)
    appender.flush()
    connection.execute(
        f"COPY (FROM raw_payloads ORDER BY partition, item) TO {quoted(str(path))} ({_PARQUET})"
    )
    connection.execute("DROP TABLE raw_payloads")


def write_records(connection: Connection, rows: Sequence[tuple[Any, ...]], path: Path) -> None:
    """Records, as rows in the order of RECORD_COLUMNS, into a Parquet file."""
    columns = ", ".join(f"{name} {kind}" for name, kind in RECORD_COLUMNS)
    connection.execute(f"CREATE OR REPLACE TEMP TABLE raw_records ({columns})")
    appender = connection.appender("raw_records")
    appender.append_rows(rows)
    appender.flush()
    connection.execute(
        f"COPY (FROM raw_records ORDER BY partition, position) TO {quoted(str(path))}"
        f" (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {RECORD_GROUP_ROWS})"
    )
    connection.execute("DROP TABLE raw_records")


RECORD_COLUMNS: Final = (
    ("partition", "BIGINT"),
    ("position", "BIGINT"),
    ("previous_hash", "BLOB"),
    ("nonce", "BIGINT"),
    ("written_at", "BIGINT"),
    ("item_min", "BIGINT"),
    ("item_max", "BIGINT"),
    ("version", "INTEGER"),
    ("events", "BLOB"),
    ("payload_checksum", "BLOB"),
    ("inputs", "BLOB"),
    ("hash", "BLOB"),
)
"""Of kept records: all of a record but its payload."""


def file_list(paths: Sequence[Path]) -> str:
    """As an SQL list of strings."""
    return "[" + ", ".join(quoted(str(path)) for path in paths) + "]"


_PARQUET: Final = f"FORMAT parquet, COMPRESSION zstd, PARQUET_VERSION v2, ROW_GROUP_SIZE {ROW_GROUP_ROWS}"
