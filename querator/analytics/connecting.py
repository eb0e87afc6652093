"""``connect``: an archive as a DuckDB connection with the documented schema."""

from pathlib import Path

from querator.analytics.manifest import TEMPORARY, ArchiveError, check_parts, read_manifest
from querator.analytics.schema import create_schema, follow_manifest
from querator.analytics.warehouse import Connection, DuckDBError, open_database, sandbox
from querator.core import limits


def connect(
    source: str | Path,
    *,
    memory_limit: str = limits.ANALYTICS_MEMORY,
    threads: int = 0,
    verify: bool = True,
    sandboxed: bool = False,
) -> Connection:
    """Open the archive in the directory ``source`` as it is now; later exports need another ``connect``.

    The caller owns the connection and closes it. It is in memory; what it is given to keep is gone then.
    Views and macros are in the schema ``querator``, which is searched first. ``verify`` reads all files
    and compares them with what was written (half a second a gigabyte); without it, only their sizes.
    ``sandboxed``: the connection can read the archive and nothing else, and its settings are locked.

    Raises:
        ArchiveError: there is no archive, or a file is missing or damaged; it is named.
    """
    directory = Path(source).resolve()
    manifest = read_manifest(directory)
    check_parts(directory, [*manifest.parts, *manifest.payload_parts], digests=verify)
    connection = open_database(memory_limit=memory_limit, threads=threads, temporary=directory / TEMPORARY)
    try:
        create_schema(connection, directory, manifest)
        connection.execute("SET search_path = 'querator,main'")
        if sandboxed:
            sandbox(connection, [directory])
    except DuckDBError as error:
        connection.close()
        raise ArchiveError(f"{directory} cannot be read: {error}") from error
    return connection


def reconnect(connection: Connection, source: Path) -> None:
    """Have a connection that ``connect`` made read the same archive as it is now. Compares no contents.

    Raises:
        ArchiveError: there is no archive, or a file is missing; it is named. The connection is as it was.
    """
    directory = source.resolve()
    manifest = read_manifest(directory)
    check_parts(directory, [*manifest.parts, *manifest.payload_parts], digests=False)
    connection.execute("BEGIN")
    try:
        follow_manifest(connection, directory, manifest)
    except DuckDBError as error:
        connection.execute("ROLLBACK")
        raise ArchiveError(f"{directory} cannot be read: {error}") from error
    connection.execute("COMMIT")
