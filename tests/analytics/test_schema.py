"""The schema: documented, sandboxed, the same over no files as over many."""

from pathlib import Path

import pytest
import trio

from querator.analytics import asking, connect
from querator.analytics.docs import write_page
from querator.analytics.manifest import MANIFEST, ArchiveError, Manifest, encode_manifest, read_manifest
from querator.analytics.warehouse import Connection, QueryFailed, QueryRefused
from tests.analytics.test_figures import build

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("archive")
    trio.run(build, directory, 1)
    return directory


@pytest.fixture
def sandboxed(archive: Path) -> Connection:
    return connect(archive, sandboxed=True)


def test_page_is_current() -> None:
    assert (ROOT / "docs" / "analytics.md").read_text() == write_page(), (
        "run: python -m querator.analytics.docs > docs/analytics.md"
    )


def test_everything_has_a_comment(archive: Path) -> None:
    connection = connect(archive)
    missing = connection.execute(
        "SELECT table_name, column_name FROM duckdb_columns()"
        " WHERE schema_name = 'querator' AND comment IS NULL AND table_name <> 'schema_version'"
        " UNION ALL SELECT name, '' FROM documentation WHERE comment IS NULL"
    ).fetchall()
    connection.close()
    assert missing == []


def test_empty_archive_answers_every_question(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_bytes(encode_manifest(Manifest()))
    connection = connect(tmp_path)
    for name in ("events", "items", "reservations", "queues", "consumers", "runs", "payloads"):
        assert connection.execute(f"FROM querator.{name}").fetchall() == []
    for name in ("throughput", "waiting", "backlog", "retries", "deaths", "kinds", "contention", "slo"):
        assert connection.execute(f"FROM querator.{name}('mail')").fetchall() == []
    connection.close()


def test_connect_names_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="there is no archive in"):
        connect(tmp_path)
    trio.run(build, tmp_path, 0)
    parts = read_manifest(tmp_path).parts
    path = tmp_path / parts[-1].file
    content = path.read_bytes()
    path.write_bytes(content[:-30] + bytes(30))
    with pytest.raises(ArchiveError, match=f"{parts[-1].file} is damaged"):
        connect(tmp_path)
    with pytest.raises(ArchiveError, match=parts[-1].file):
        connect(tmp_path, verify=False)
    path.unlink()
    with pytest.raises(ArchiveError, match=f"{parts[-1].file} is missing"):
        connect(tmp_path, verify=False)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM read_text('{archive}/../outside.txt')",
        "FROM '/etc/passwd'",
        "FROM glob('/etc/*')",
        "FROM read_csv('/etc/hostname')",
        "FROM 'https://example.org/x.parquet'",
        "COPY (SELECT 1) TO '{archive}/x.csv'",
        "COPY items TO '/tmp/x.csv'",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{archive}/x.csv'",
        "explain  analyze\nCOPY (SELECT 1) TO '{archive}/x.csv'",
        "EXPLAIN (ANALYZE) COPY (SELECT 1) TO '{archive}/x.csv'",
        "/* */ EXPLAIN ANALYZE COPY (SELECT 1) TO '{archive}/x.csv'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "ATTACH '{archive}/x.db'",
        "EXPORT DATABASE '{archive}/x'",
        "SET enable_external_access = true",
        "RESET allowed_directories",
        "PRAGMA enable_profiling",
        "CREATE TABLE x (a INT)",
        "DROP VIEW querator.items",
        "SELECT 1; SELECT 2",
        "",
    ],
)
def test_what_reads_outside_writes_installs_or_attaches_is_refused(
    sandboxed: Connection, archive: Path, statement: str
) -> None:
    (archive.parent / "outside.txt").write_text("secret")
    before = sorted(archive.rglob("*"))
    try:
        with pytest.raises(QueryFailed) as caught:
            asking.run_query(sandboxed, statement.replace("{archive}", str(archive)))
        if "FROM '" not in statement and "(ANALYZE)" not in statement:
            assert caught.type is QueryRefused
        assert sorted(archive.rglob("*")) == before
        assert asking.run_query(sandboxed, "SELECT count(*) > 0 FROM events").rows == [(True,)]
    finally:
        sandboxed.close()


def test_settings_of_a_sandbox_are_locked(sandboxed: Connection) -> None:
    with pytest.raises(Exception, match="locked"):
        sandboxed.execute("SET enable_external_access = true")
    sandboxed.close()


def test_answers_can_be_written_by_suffix(sandboxed: Connection, tmp_path: Path) -> None:
    for suffix in ("parquet", "csv", "json"):
        path = tmp_path / f"items.{suffix}"
        count = asking.write_query(sandboxed, "FROM items;", path)
        reader = connect_nothing()
        assert reader.execute(f"SELECT count(*) FROM '{path}'").fetchone() == (count,)
        reader.close()
    with pytest.raises(QueryFailed, match="must end in"):
        asking.write_query(sandboxed, "FROM items", tmp_path / "items.xls")
    with pytest.raises(QueryRefused):
        asking.write_query(sandboxed, "FROM read_text('/etc/passwd')", tmp_path / "x.csv")
    sandboxed.close()


def connect_nothing() -> Connection:
    from querator.analytics.warehouse import open_database

    return open_database(threads=1)


def test_rows_beyond_the_bound_are_cut_and_said_so(sandboxed: Connection) -> None:
    result = asking.run_query(sandboxed, "FROM range(10)", rows_max=3)
    assert (len(result.rows), result.is_cut) == (3, True)
    assert not asking.run_query(sandboxed, "FROM range(3)", rows_max=3).is_cut
    sandboxed.close()
