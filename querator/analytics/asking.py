"""Free questions: one SELECT over an archive, and nothing that could do anything else."""

import re
from pathlib import Path
from typing import Any, Final

import attrs

from querator.analytics.warehouse import (
    Connection,
    DuckDBError,
    Forbidden,
    QueryFailed,
    QueryRefused,
    StatementType,
    open_database,
    quoted,
)

_EXPLAIN: Final = re.compile(r"\s*EXPLAIN\s+(?:ANALYZE\s+)?(.*)", re.IGNORECASE | re.DOTALL)
_FORMATS: Final = {
    ".parquet": "FORMAT parquet, COMPRESSION zstd",
    ".csv": "FORMAT csv, HEADER",
    ".json": "FORMAT json",
}


@attrs.frozen
class Result:
    columns: list[str]
    rows: list[tuple[Any, ...]]
    is_cut: bool = False
    """There were more rows than were wanted."""


def check_statement(connection: Connection, sql: str) -> str:
    """The one statement in ``sql``, when it only reads.

    Raises:
        QueryRefused: it is more than one, or does more than read.
        QueryFailed: it is none.
    """
    try:
        statements = connection.extract_statements(sql)
    except DuckDBError as error:
        raise QueryFailed(str(error)) from error
    if len(statements) != 1:
        raise QueryRefused(f"one statement at a time, not {len(statements)}")
    kind = statements[0].type
    if kind == StatementType.EXPLAIN:
        # EXPLAIN ANALYZE runs what it explains.
        match = _EXPLAIN.match(sql)
        if match is not None:
            check_statement(connection, match[1])
            return sql
    if kind != StatementType.SELECT:
        raise QueryRefused(f"only SELECT (or FROM …) and EXPLAIN of one; this is {_name(kind)}")
    return sql.strip().rstrip(";")


def _name(kind: object) -> str:
    return str(kind).rpartition(".")[2]


def run_query(connection: Connection, sql: str, *, rows_max: int = 0) -> Result:
    """The rows of one SELECT; 0: all of them.

    Raises:
        QueryRefused: see ``check_statement``; or it reads what this connection may not read.
        QueryFailed: DuckDB cannot answer it; the text is its own.
    """
    statement = check_statement(connection, sql)
    try:
        cursor = connection.execute(statement)
        columns = [entry[0] for entry in cursor.description or ()]
        rows = cursor.fetchmany(rows_max + 1) if rows_max else cursor.fetchall()
    except Forbidden as error:
        raise QueryRefused(str(error)) from error
    except DuckDBError as error:
        raise QueryFailed(str(error)) from error
    if rows_max and len(rows) > rows_max:
        return Result(columns, rows[:rows_max], is_cut=True)
    return Result(columns, rows)


class _Stream:
    """Rows of one connection, for another to read."""

    def __init__(self, relation: Any) -> None:
        self._relation = relation

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._relation.__arrow_c_stream__(requested_schema)


def write_query(connection: Connection, sql: str, path: Path) -> int:
    """Write the rows of one SELECT to a Parquet, CSV or JSON file (by its suffix); how many.

    The question is asked on ``connection``, which may be sandboxed; another one writes.

    Raises:
        QueryRefused, QueryFailed: as ``run_query``; or the suffix is none of the three.
    """
    form = _FORMATS.get(path.suffix.lower())
    if form is None:
        raise QueryFailed(f"'{path.name}' must end in {', '.join(_FORMATS)}")
    statement = check_statement(connection, sql)
    writer = open_database()
    try:
        writer.register("answer", _Stream(connection.sql(statement)))
        counted = writer.execute(f"COPY (FROM answer) TO {quoted(str(path))} ({form})").fetchone()
    except Forbidden as error:
        raise QueryRefused(str(error)) from error
    except DuckDBError as error:
        raise QueryFailed(str(error)) from error
    finally:
        writer.close()
    return 0 if counted is None else int(counted[0])
