"""What a server, its schema and our role must be like before they are trusted with a log.

Each fault has a reason, a remedy and, where somebody may decide to live with it, the flag that says so.
"""

from typing import Final

import attrs

from querator.core.ids import Instant
from querator.core.limits import QUERY_TIMEOUT
from querator.errors import LogUnavailable
from querator.log.postgres.classify import Meaning, classify
from querator.log.postgres.connection import Connection, Rows
from querator.log.postgres.statements import migrations, statement
from querator.log.postgres.wire import decode_bool, decode_int

VERSION_MIN: Final = 140_000
UNSAFE_DURABILITY: Final = "unsafe-durability"
UNSAFE_ROLE: Final = "unsafe-role"


@attrs.frozen
class Fault:
    """Why a server is refused."""

    code: str
    reason: str
    remedy: str
    flag: str = ""
    """``--<flag>`` accepts it; "": nothing does."""

    def __str__(self) -> str:
        way_out = f", or run with --{self.flag}" if self.flag else ""
        return f"{self.reason}: {self.remedy}{way_out}"


@attrs.frozen
class Facts:
    """What a server says of itself."""

    version: int
    in_recovery: bool
    fsync: bool
    full_page_writes: bool
    synchronous_commit: str
    time: Instant
    backend_pid: int
    has_schema: bool
    reads_system_identifier: bool
    role: str
    is_superuser: bool

    def faults(self) -> list[Fault]:
        """Of the server alone; schema and role have their own."""
        found = []
        if self.version < VERSION_MIN:
            found.append(
                Fault(
                    "version",
                    f"PostgreSQL {self.version // 10_000} is too old",
                    f"use {VERSION_MIN // 10_000} or later",
                )
            )
        if self.in_recovery:
            found.append(Fault("recovery", "the server is a standby", "connect to the primary"))
        if not self.fsync:
            found.append(
                Fault(
                    "fsync",
                    "fsync is off, a crash loses acknowledged items",
                    "set fsync = on and reload",
                    UNSAFE_DURABILITY,
                )
            )
        if not self.full_page_writes:
            found.append(
                Fault(
                    "full_page_writes",
                    "full_page_writes is off, a crash can tear pages",
                    "set full_page_writes = on and reload",
                    UNSAFE_DURABILITY,
                )
            )
        if self.synchronous_commit == "off":
            found.append(
                Fault(
                    "synchronous_commit",
                    "synchronous_commit is off, a crash loses acknowledged items",
                    f"alter role {self.role} set synchronous_commit = on",
                    UNSAFE_DURABILITY,
                )
            )
        return found


async def read_facts(connection: Connection) -> Facts:
    """Ask a server about itself.

    Raises:
        LogUnavailable: it does not answer.
    """
    row = (await _query(connection, "facts"))[0]
    return Facts(
        version=decode_int(row[0]),
        in_recovery=decode_bool(row[1]),
        fsync=decode_bool(row[2]),
        full_page_writes=decode_bool(row[3]),
        synchronous_commit=row[4].decode(),
        time=Instant(decode_int(row[5])),
        backend_pid=decode_int(row[6]),
        has_schema=decode_bool(row[7]),
        reads_system_identifier=decode_bool(row[8]),
        role=row[9].decode(),
        is_superuser=decode_bool(row[10]),
    )


async def schema_faults(connection: Connection, facts: Facts) -> list[Fault]:
    """Whether the database has exactly the migrations that this version knows."""
    if not facts.has_schema:
        return [Fault("schema", "the database has no querator schema", "run `querator db install`")]
    known = [number for number, _, _ in migrations()]
    present = [decode_int(row[0]) for row in await _query(connection, "schema")]
    if present == known:
        return []
    if present[: len(known)] == known:
        return [Fault("schema", "the schema is newer than this version", "use the version that upgraded it")]
    return [Fault("schema", "the schema is older than this version", "run `querator db upgrade`")]


async def role_faults(connection: Connection, facts: Facts) -> list[Fault]:
    """Whether the role may do what it must, and nothing that could change history."""
    lacks = [row[0].decode() for row in await _query(connection, "lacks")]
    if lacks:
        return [
            Fault(
                "role_lacks",
                f"role {facts.role} has no {', '.join(lacks)}",
                f"run `querator db upgrade --role {facts.role}`",
            )
        ]
    powers = [row[0].decode() for row in await _query(connection, "powers")]
    if not powers and not facts.is_superuser:
        return []
    powerful = "is a superuser" if facts.is_superuser else f"may {', '.join(powers)} on the log"
    return [
        Fault(
            "role",
            f"role {facts.role} {powerful}",
            "connect as a role of its own, given its rights by `querator db install --role NAME`",
            UNSAFE_ROLE,
        )
    ]


async def all_faults(connection: Connection) -> list[Fault]:
    """Everything there is to refuse, for ``querator db verify``."""
    facts = await read_facts(connection)
    faults = facts.faults() + await schema_faults(connection, facts)
    if facts.has_schema:
        faults += await role_faults(connection, facts)
    return faults


async def _query(connection: Connection, name: str) -> list[tuple[bytes, ...]]:
    return complete(await connection.run(statement(name), within=QUERY_TIMEOUT))


def complete(rows: Rows) -> list[tuple[bytes, ...]]:
    """The rows of a statement that only reads.

    Raises:
        LogUnavailable: it did not complete.
    """
    if classify(rows.answer) is not Meaning.COMMITTED and not rows.answer.completed:
        raise LogUnavailable(f"PostgreSQL: {rows.answer.message}")
    return rows.values  # type: ignore[return-value] # nulls are looked for where they can be
