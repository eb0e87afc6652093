"""Installs and upgrades the schema: numbered scripts, each in a transaction, under an advisory lock.

Blocking, with psycopg's public interface; run it from the command line or in a thread. ``pre``
scripts may run while the version before still serves, ``post`` scripts only after.
"""

import hashlib
from typing import Final

import attrs
import psycopg
from psycopg import sql

from querator.errors import ConfigError, LogUnavailable
from querator.log.postgres.statements import bucket_table, migrations, text

LOCK: Final = 0x5175_6572
"""The advisory lock of migrations; nothing else takes one."""


@attrs.frozen
class Applied:
    number: int
    name: str


def install(conninfo: str, *, role: str | None = None, post: bool = True) -> list[Applied]:
    """Bring a database up to this version, and give ``role`` what a server needs; what was applied now.

    Safe to repeat and to run from several nodes at once. ``post=False`` stops before the first script
    that the version before could not live with.

    Raises:
        ConfigError: the database is newer, or a script it has is not the one we know, or it refused.
        LogUnavailable: it cannot be reached.
    """
    try:
        return _install(conninfo, role=role, post=post)
    except psycopg.OperationalError as error:
        raise LogUnavailable(f"PostgreSQL: {str(error).strip()}") from error
    except psycopg.Error as error:
        raise ConfigError(f"PostgreSQL refused: {str(error).strip()}") from error


def _install(conninfo: str, *, role: str | None, post: bool) -> list[Applied]:
    done = []
    with psycopg.connect(conninfo, autocommit=True) as connection:
        while True:
            with connection.transaction():
                connection.execute("select pg_advisory_xact_lock(%s)", (LOCK,))
                pending = _pending(connection)
                if not pending or (not post and "_post_" in pending[0][1]):
                    break
                number, name, script = pending[0]
                connection.execute(script.encode())
                connection.execute(
                    "insert into querator.migration (number, name, checksum) values (%s, %s, %s)",
                    (number, name, checksum(script)),
                )
                done.append(Applied(number, name))
        if role is not None:
            grant(connection, role)
    return done


def grant(connection: psycopg.Connection, role: str) -> None:
    """Give ``role`` what a server needs, on the open bucket too; new buckets take it over."""
    with connection.transaction():
        row = connection.execute("select max(number) from querator.bucket").fetchone()
        bucket = bucket_table(row[0] if row is not None else 1)
        script = sql.SQL(text("roles/grants")).format(role=sql.Identifier(role), bucket=bucket)
        connection.execute(script)


def script(*, post: bool = True) -> str:
    """All migrations as one script, for those who run SQL by other means. The same every time."""
    parts = []
    for number, name, body in migrations():
        if post or "_post_" not in name:
            parts.append(f"-- {name}\nbegin;\nselect pg_advisory_xact_lock({LOCK});\n{body}")
            digest = checksum(body).hex()
            parts.append(
                "insert into querator.migration (number, name, checksum)\n"
                f"values ({number}, '{name}', '\\x{digest}');\ncommit;\n"
            )
    return "\n".join(parts)


def checksum(script: str) -> bytes:
    """Of a migration's text, to notice a database that was built from another one."""
    return hashlib.sha256(script.encode()).digest()


def _pending(connection: psycopg.Connection) -> list[tuple[int, str, str]]:
    known = migrations()
    row = connection.execute("select to_regclass('querator.migration') is not null").fetchone()
    if row is None or not row[0]:
        return known
    present = {
        number: (name, bytes(digest))
        for number, name, digest in connection.execute(
            "select number, name, checksum from querator.migration"
        )
    }
    for number, name, body in known:
        if number in present and present[number] != (name, checksum(body)):
            raise ConfigError(
                f"migration {number} of the database is `{present[number][0]}`, not our `{name}`: it was"
                " made by a different build; restore from that build's export"
            )
    newest = known[-1][0]
    if any(number > newest for number in present):
        raise ConfigError("the schema is newer than this version: use the version that upgraded it")
    return [migration for migration in known if migration[0] not in present]
