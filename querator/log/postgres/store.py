"""``PostgresLog``: the log store's contract over the parts of this package."""

from collections.abc import Mapping, Sequence
from typing import Final

from querator.core.ids import CATALOG_PARTITION, Instant, PartitionId, Position
from querator.core.limits import (
    APPEND_CONNECTIONS,
    APPEND_LANES,
    CLOCK_ROUND_TRIP_MAX,
    CLOCK_TRIES_MAX,
    QUERY_TIMEOUT,
    READ_CONNECTIONS,
)
from querator.env import Env
from querator.errors import ConfigError, HistoryDropped, LogError, LogUnavailable
from querator.log.lease import NodeLease
from querator.log.postgres import wire
from querator.log.postgres.append import AppendCounts, Appender
from querator.log.postgres.checks import (
    Facts,
    Fault,
    complete,
    read_facts,
    role_faults,
    schema_faults,
)
from querator.log.postgres.connection import Rows, connect
from querator.log.postgres.node import open_lease
from querator.log.postgres.pool import Pool
from querator.log.postgres.snapshots import SnapshotRows
from querator.log.postgres.statements import statement
from querator.log.records import ChunkId, Record, Snapshot, Tail
from querator.log.store import Bucket, Verdict

_NO_SUCH_TABLE = "42P01"


class PostgresLog:
    """A log in one PostgreSQL database; see ``LogStore`` for the contract.

    Reading a partition's tail is the first step of its claim: the server it was read from is remembered
    and compared inside every append to that partition. After a failover each append is refused
    (``NOT_MINE``) until the tail has been read, and the partition claimed, anew.

    ``conninfo`` is a URI or a libpq string; what it leaves out comes from libpq's variables.
    ``unsafe`` holds the flags of faults to put up with (checks.py).
    """

    away: Final = ""
    remarks: Final = ()
    """Found out when it is asked."""

    def __init__(
        self, env: Env, conninfo: str, *, name: str = "postgres", unsafe: frozenset[str] = frozenset()
    ) -> None:
        self.name = name
        self.lanes = APPEND_LANES
        self.accepted_faults: list[Fault] = []
        """Found at ``open`` and accepted by a flag; operators must see them."""
        self.facts: Facts | None = None
        """What the server said of itself at ``open``, its time included."""
        self._env = env
        self._conninfo = conninfo
        self._unsafe = unsafe
        self._writers = Pool(conninfo, env, APPEND_CONNECTIONS, unsafe=unsafe)
        self._readers = Pool(conninfo, env, READ_CONNECTIONS, unsafe=unsafe)
        self._appender = Appender(self._writers, unsafe=unsafe)
        self._snapshots = SnapshotRows(name, self._readers)

    @property
    def counts(self) -> AppendCounts:
        return self._appender.counts

    async def open(self) -> None:
        """Connect, and refuse a server that would lose what it acknowledged.

        Raises:
            ConfigError: the server, the schema or the role is unfit; the text has the remedy.
            LogUnavailable: there is no server to ask.
        """
        connection = await connect(self._conninfo, self._env)
        try:
            self.facts = facts = await read_facts(connection)
            faults = facts.faults() + await schema_faults(connection, facts)
            if facts.has_schema:
                faults += await role_faults(connection, facts)
        finally:
            connection.close()
        refused = [fault for fault in faults if fault.flag not in self._unsafe]
        if refused:
            raise ConfigError("PostgreSQL log: " + "; ".join(str(fault) for fault in refused))
        self.accepted_faults = faults
        full = facts.reads_system_identifier
        self._appender.identity_sql = "identity_full" if full else "identity_timeline"
        self._appender.identity, _ = await self._look(CATALOG_PARTITION)

    async def aclose(self) -> None:
        self._writers.close()
        self._readers.close()

    # --- The log ---------------------------------------------------------------------------------

    async def append(self, records: Sequence[Record]) -> list[Verdict]:
        return await self._appender.append(records)

    async def partitions(self) -> list[PartitionId]:
        rows = complete(await self._read("partitions", []))
        return [PartitionId(wire.decode_int(row[0])) for row in rows]

    async def tail(self, partition: PartitionId) -> Tail | None:
        identity, tail = await self._look(partition)
        self._appender.identities[partition] = identity
        return tail

    def server_identity(self, partition: PartitionId) -> str:
        """Of the server the partition's tail was last read from: for its ``claimed`` event."""
        return self._appender.identities.get(partition, self._appender.identity)

    def remembered(self, partition: PartitionId) -> Position:
        del partition
        return Position(0)

    def accept_loss(self, partition: PartitionId) -> None:
        """There is no witness here."""

    async def _look(self, partition: PartitionId) -> tuple[str, Tail | None]:
        sql = statement("tail", identity=self._appender.identity_sql)
        async with self._readers.borrow() as connection:
            rows = await connection.run(sql, [wire.encode_int8(partition)], within=QUERY_TIMEOUT)
        identity, bucket, position, digest, nonce = complete(rows)[0]
        self._appender.open_bucket = max(self._appender.open_bucket, wire.decode_int(bucket))
        if position is None:
            return identity.decode(), None
        return identity.decode(), Tail(Position(wire.decode_int(position)), digest, wire.decode_int(nonce))

    async def read(
        self, partition: PartitionId, start: Position, *, records_max: int, bytes_max: int, payloads: bool
    ) -> list[Record]:
        records: list[Record] = []
        size = 0
        while len(records) < records_max and (size < bytes_max or not records):
            position = Position(start + len(records))
            bucket, is_dropped, is_open = await self._locate(partition, position)
            rows = None
            if not is_dropped:
                rows = await self._read(
                    "read",
                    [
                        wire.encode_int8(partition),
                        wire.encode_int8(position),
                        wire.encode_int8(records_max - len(records)),
                        wire.encode_int8(bytes_max - size),
                        wire.encode_bool(payloads),
                        wire.encode_bool(not records),
                    ],
                    bucket=bucket,
                )
            if rows is None or rows.answer.sqlstate == _NO_SUCH_TABLE:
                if not records:
                    raise HistoryDropped(
                        f"position {position} of partition {partition} was in bucket {bucket}"
                    )
                break
            found = [_record(row) for row in complete(rows)]
            records += found
            size += sum(_size(record) for record in found)
            if is_open or not found:
                break
        return records

    async def read_payloads(
        self, partition: PartitionId, positions: Sequence[Position]
    ) -> dict[Position, bytes]:
        found: dict[Position, bytes] = {}
        buckets: dict[int, list[Position]] = {}
        for position in sorted(positions):
            bucket, is_dropped, _ = await self._locate(partition, position)
            if is_dropped:
                raise HistoryDropped(f"position {position} of partition {partition} was in bucket {bucket}")
            buckets.setdefault(bucket, []).append(position)
        for bucket, wanted in buckets.items():
            parameters = [wire.encode_int8(partition), wire.encode_int8s(wanted)]
            for row in complete(await self._read("read_payloads", parameters, bucket=bucket)):
                found[Position(wire.decode_int(row[0]))] = row[1]
        return found

    async def _locate(self, partition: PartitionId, position: Position) -> tuple[int, bool, bool]:
        """(bucket, whether it is gone, whether it is the open one) of a position."""
        rows = complete(await self._read("locate", [wire.encode_int8(partition), wire.encode_int8(position)]))
        bucket, is_dropped, is_open = rows[0]
        return wire.decode_int(bucket), wire.decode_bool(is_dropped), wire.decode_bool(is_open)

    async def _read(self, name: str, parameters: list[bytes], *, bucket: int | None = None) -> Rows:
        async with self._readers.borrow() as connection:
            return await connection.run(
                statement(name, bucket=bucket), parameters, within=QUERY_TIMEOUT, prepare=True
            )

    # --- What nodes share ------------------------------------------------------------------------

    def line(self, *, name: str, address: str, nonce: int) -> NodeLease:
        """A place in the line of nodes on this database, not yet taken."""
        return open_lease(
            self._env, self._conninfo, name=name, address=address, nonce=nonce, unsafe=self._unsafe
        )

    async def shared_secret(self, name: str, fresh: bytes) -> bytes:
        """The secret of that name that all nodes have; ``fresh`` where there was none.

        Raises:
            LogUnavailable: the database does not answer.
        """
        while True:
            rows = complete(await self._read("shared_secret", [name.encode(), fresh]))
            if rows:
                return rows[0][0]

    async def time(self) -> Instant:
        """The database's clock, now, as exactly as half of CLOCK_ROUND_TRIP_MAX.

        Raises:
            LogUnavailable: the database does not answer, or not soon enough to tell the time.
        """
        for _ in range(CLOCK_TRIES_MAX):
            asked_at = self._env.clock.monotonic()
            rows = complete(await self._read("time", []))
            round_trip = self._env.clock.monotonic() - asked_at
            if round_trip <= CLOCK_ROUND_TRIP_MAX:
                return Instant(wire.decode_int(rows[0][0]) + round_trip // 2)
        raise LogUnavailable("PostgreSQL: its answers take too long to tell the time by")

    # --- Snapshots -------------------------------------------------------------------------------

    async def put_chunks(self, partition: PartitionId, chunks: Mapping[ChunkId, bytes]) -> None:
        await self._snapshots.put_chunks(partition, chunks)

    async def put_snapshot(self, snapshot: Snapshot) -> None:
        await self._snapshots.put_snapshot(snapshot)

    async def snapshots(self, partition: PartitionId) -> list[Snapshot]:
        return await self._snapshots.snapshots(partition)

    async def read_chunks(self, partition: PartitionId, chunks: Sequence[ChunkId]) -> dict[ChunkId, bytes]:
        return await self._snapshots.read_chunks(partition, chunks)

    # --- Buckets ---------------------------------------------------------------------------------

    async def buckets(self) -> list[Bucket]:
        rows = complete(await self._read("buckets", []))
        return [
            Bucket(wire.decode_int(number), wire.decode_int(size), wire.decode_bool(sealed))
            for number, size, sealed in rows
        ]

    async def roll(self) -> int:
        """Open the next bucket; the number of the open one. When somebody else just did, that is it.

        Raises:
            LogUnavailable: readers of the open bucket would not make way; nothing changed, try later.
        """
        rows = await self._read("open_bucket", [wire.encode_int4(self._appender.open_bucket)])
        self._appender.open_bucket = wire.decode_int(complete(rows)[0][0])
        return self._appender.open_bucket

    async def drop(self, bucket: int) -> None:
        """Drop the oldest bucket.

        Raises:
            LogError: it is not the oldest, or not sealed.
            LogUnavailable: readers of the log would not make way; nothing changed, try later.
        """
        rows = await self._read("drop_bucket", [wire.encode_int4(bucket)])
        if rows.answer.sqlstate == "55000":
            raise LogError(rows.answer.message)
        complete(rows)


def _record(row: tuple[bytes, ...]) -> Record:
    return Record(
        partition=PartitionId(wire.decode_int(row[0])),
        position=Position(wire.decode_int(row[1])),
        nonce=wire.decode_int(row[2]),
        written_at=Instant(wire.decode_int(row[3])),
        item_min=wire.decode_int(row[4]),
        item_max=wire.decode_int(row[5]),
        version=wire.decode_int(row[6]),
        previous_hash=row[7],
        hash=row[8],
        payload_checksum=row[9],
        inputs=row[10],
        events=row[11],
        payload=row[12],
    )


def _size(record: Record) -> int:
    return len(record.events) + len(record.inputs) + len(record.payload or b"")
