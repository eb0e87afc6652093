"""The simulated store: a database server in virtual time, with the semantics of PostgreSQL.

An append is one statement that runs on the server, whatever becomes of the client that sent it. It takes the
unique keys of its records one by one, in order; where another statement holds a key and has not committed, it
waits, for so long and no longer (BUSY). What it may write it decides by what is committed then. It commits
all at once, after a while, and only then anybody can read it. So a client that lost its connection and
looks may see nothing, and the record comes later all the same; one that sends the same record again waits
and learns.

``SimulatedLog`` passes the contract that every store passes (tests/simulations/test_simulated_log.py).
"""

from collections.abc import Mapping, Sequence
from random import Random
from typing import Final

import attrs
import trio

from querator.core.ids import PartitionId, Position
from querator.env import Env
from querator.errors import AppendOutcomeUnknown, LogError, LogUnavailable
from querator.log.memory import MemoryDisk, MemoryLog
from querator.log.records import ChunkId, Record, Snapshot, Tail
from querator.log.rules import Standing, row_checksum, standing
from querator.log.store import Bucket, Verdict
from simulations.cable import Cable
from simulations.checkers.evidence import Facts
from simulations.gate import Gate
from simulations.options import Options
from simulations.trace import Trace

LOCK_WAIT: Final = 0.25
"""Seconds that a statement waits for another one's key."""


@attrs.define(eq=False)
class Statement:
    """An append on the server."""

    records: Sequence[Record]
    identities: Sequence[str]
    """Of the server that each record's partition was claimed on."""
    starts_after: float
    """Seconds until the server comes to it."""
    commits_after: float
    """Seconds from its last key to its commit."""
    who: str = ""
    """Whose it is."""
    verdicts: list[Verdict] = attrs.Factory(list)
    is_aborted: bool = False
    done: trio.Event = attrs.Factory(trio.Event)


class SimulatedDisk(MemoryDisk):
    """The server, and what it keeps. ``archive`` has every record that was ever committed, for the checkers:
    buckets that are dropped stay there."""

    def __init__(self) -> None:
        super().__init__()
        self.archive = MemoryDisk()
        self.committed_at: dict[tuple[int, int], float] = {}
        """(partition, position) to virtual seconds."""
        self.identity = "server 1, timeline 1"
        self.is_down = False
        self.restarts = 0
        """How often it was killed, or replaced."""
        self.writers: dict[tuple[int, int], str] = {}
        """(partition, position) to whose statement committed the record."""
        self._held: dict[tuple[int, int], Statement] = {}
        """Unique keys of statements that have not committed, by (partition, position)."""
        self._running: dict[Statement, None] = {}

    async def execute(self, statement: Statement) -> None:
        """Run it to its end; run this where no client's death reaches it."""
        self._running[statement] = None
        try:
            await trio.sleep(statement.starts_after)
            taken = await self._take_keys(statement)
            if not statement.is_aborted and taken:
                await trio.sleep(statement.commits_after)
            if not statement.is_aborted:
                for record in taken:
                    self.commit(record)
                    self.writers[record.partition, record.position] = statement.who
        finally:
            for key in [key for key, holder in self._held.items() if holder is statement]:
                del self._held[key]
            self._running.pop(statement, None)
            statement.done.set()

    async def _take_keys(self, statement: Statement) -> list[Record]:
        verdicts: dict[int, Verdict] = {}
        taken: list[Record] = []
        order = sorted(range(len(statement.records)), key=lambda index: statement.records[index].partition)
        for index in order:
            record = statement.records[index]
            key = (record.partition, record.position)
            with trio.move_on_after(LOCK_WAIT):
                while (holder := self._held.get(key)) is not None:
                    await holder.done.wait()
            if key in self._held:
                verdicts[index] = Verdict.BUSY
                continue
            verdicts[index] = self._judge(record, statement.identities[index])
            if verdicts[index] is Verdict.MINE and self.find(record.partition, record.position) is None:
                self._held[key] = statement
                taken.append(record)
        statement.verdicts = [verdicts[index] for index in range(len(statement.records))]
        return taken

    def _judge(self, record: Record, identity: str) -> Verdict:
        if identity != self.identity:
            return Verdict.NOT_MINE
        there = self.partitions.get(record.partition)
        where = standing(record, there.tail if there is not None else None)
        if where is Standing.NEXT:
            return Verdict.MINE
        found = self.find(record.partition, record.position) if where is Standing.TAKEN else None
        return Verdict.MINE if found is not None and found.hash == record.hash else Verdict.NOT_MINE

    def commit(self, record: Record) -> None:
        """It can be read from now on."""
        self.append([record])
        self.archive.append([record])
        self.committed_at.setdefault((record.partition, record.position), trio.current_time())

    def abort_all(self) -> None:
        """What has not committed never will: the server is killed."""
        self.restarts += 1
        for statement in self._running:
            statement.is_aborted = True
        self._held.clear()
        for statement in list(self._running):
            statement.done.set()

    def fail_over(self, lost: int) -> dict[int, int]:
        """To a standby that lacks the last ``lost`` records of every partition but the catalog; the first
        position that is missing, by partition."""
        self.abort_all()
        self.identity = f"server 1, timeline {int(self.identity.rpartition(' ')[2]) + 1}"
        missing: dict[int, int] = {}
        for number, there in self.partitions.items():
            if not number or not lost or len(there.records) <= lost:
                continue
            last = there.records[-lost - 1].record
            for copy in (there, self.archive.partitions[number]):
                del copy.records[-lost:]
                copy.tail = Tail(last.position, last.hash, last.nonce)
            there.snapshots = [kept for kept in there.snapshots if kept[0].position <= last.position]
            missing[number] = last.position + 1
        return missing


class Faults:
    """What befalls one process's dealings with the store; drawn from one stream. This one: nothing."""

    is_healed = True

    def network(self) -> float:
        """Seconds that a message takes."""
        return 0.0

    def commit(self) -> float:
        """Seconds that a commit takes."""
        return 0.0

    def fate(self) -> str:
        """Of an append: "" (it is answered), unavailable, unknown_lost, unknown_late or unknown_kept."""
        return ""

    def lateness(self) -> tuple[float, float]:
        """Of a zombie: seconds until it starts, and from there to its commit."""
        return 0.0, 0.0

    def damages_snapshot(self) -> bool:
        """Whether a snapshot rots where it is stored."""
        return False


class DrawnFaults(Faults):
    """As the options say, for one life of a node."""

    def __init__(self, options: Options, dice: Random, trace: Trace, facts: Facts) -> None:
        self._options = options
        self._dice = dice
        self._trace = trace
        self._facts = facts
        self.is_healed = False

    def _bites(self, name: str, chance: float, lasts: float = 1.0) -> bool:
        if self.is_healed or not chance or self._dice.random() >= chance:
            return False
        self._trace.mark(name)
        now = trio.current_time()
        self._facts.troubles.append((now, now + lasts, name))
        return True

    def network(self) -> float:
        return 0.0 if self.is_healed else self._dice.expovariate(4_000)

    def commit(self) -> float:
        if self.is_healed:
            return 0.0
        if self._bites("commit.slow", self._options.slow_commit, 3.0):
            return self._dice.choice((0.3, 2.0))
        return self._dice.expovariate(4_000)

    def fate(self) -> str:
        options = self._options
        for name in ("unavailable", "unknown_lost", "unknown_late", "unknown_kept"):
            if self._bites(f"commit.{name}", getattr(options, name)):
                return name
        return ""

    def lateness(self) -> tuple[float, float]:
        late = self._dice.choice((0.001, 0.05, 1.0))
        # Either it was not begun yet, or it holds its keys and does not come to an end.
        return (late, 0.0) if self._dice.random() < 0.5 else (0.0, late)

    def damages_snapshot(self) -> bool:
        return self._bites("snapshot.rotten", self._options.rotten_snapshot, 0.0)


class SimulatedLog(MemoryLog):
    """One process's connection to the simulated server. Once its process is dead, nothing is sent any more;
    what was sent goes on."""

    def __init__(
        self,
        env: Env,
        disk: SimulatedDisk,
        server: trio.Nursery,
        *,
        gate: Gate | None = None,
        cable: Cable | None = None,
        faults: Faults | None = None,
        trace: Trace | None = None,
        facts: Facts | None = None,
        who: str = "",
    ) -> None:
        super().__init__(env, disk)
        self._server = server
        self._simulated = disk
        self._gate = gate if gate is not None else Gate()
        self._cable = cable if cable is not None else Cable()
        self.fate = faults if faults is not None else Faults()
        self._trace = trace
        self._facts = facts
        self._who = who
        self._identities: dict[int, str] = {}

    async def _call(self) -> None:
        """A round trip, for everything but appends."""
        await self._gate.passage()
        await trio.sleep(self.fate.network())
        await self._gate.passage()
        if self._simulated.is_down or not await self._cable.reaches():
            raise LogUnavailable("simulated: the server is out of reach")

    async def append(self, records: Sequence[Record]) -> list[Verdict]:
        await self._gate.passage()
        await trio.sleep(self.fate.network())
        await self._gate.passage()
        fate = self.fate.fate()
        if fate == "unavailable" or self._simulated.is_down or not await self._cable.reaches():
            raise self._failed(LogUnavailable("simulated: no space left"))
        if fate == "unknown_lost":
            raise self._failed(AppendOutcomeUnknown("simulated: the connection broke before the commit"))
        if self._trace is not None:
            names = " ".join(f"{record.partition}:{record.position}" for record in records)
            self._trace.note(self._who, "append", f"{names} {fate}")
        identities = [self._identities.get(record.partition, self._simulated.identity) for record in records]
        starts, commits = self.fate.lateness() if fate == "unknown_late" else (0.0, self.fate.commit())
        statement = Statement(
            [attrs.evolve(record) for record in records], identities, starts, commits, self._who
        )
        self._server.start_soon(self._simulated.execute, statement, name="server")
        if fate == "unknown_late":
            raise self._failed(AppendOutcomeUnknown("simulated: the connection broke, the server goes on"))
        with self._cable.crossing() as scope:
            await statement.done.wait()
        await self._gate.passage()
        if scope.cancelled_caught or self._cable.is_cut:
            raise self._failed(AppendOutcomeUnknown("simulated: the server is out of reach"))
        if statement.is_aborted:
            raise self._failed(AppendOutcomeUnknown("simulated: the server was killed"))
        if fate == "unknown_kept":
            raise self._failed(AppendOutcomeUnknown("simulated: the connection broke after the commit"))
        return statement.verdicts

    def _failed(self, error: LogError) -> LogError:
        if self._facts is not None:
            self._facts.failures.append(trio.current_time())
        return error

    async def partitions(self) -> list[PartitionId]:
        await self._call()
        return await super().partitions()

    async def tail(self, partition: PartitionId) -> Tail | None:
        await self._call()
        self._identities[partition] = self._simulated.identity
        return await super().tail(partition)

    def server_identity(self, partition: PartitionId) -> str:
        return self._identities.get(partition, self._simulated.identity)

    async def read(
        self, partition: PartitionId, start: Position, *, records_max: int, bytes_max: int, payloads: bool
    ) -> list[Record]:
        await self._call()
        return await super().read(
            partition, start, records_max=records_max, bytes_max=bytes_max, payloads=payloads
        )

    async def read_payloads(
        self, partition: PartitionId, positions: Sequence[Position]
    ) -> dict[Position, bytes]:
        await self._call()
        return await super().read_payloads(partition, positions)

    async def put_chunks(self, partition: PartitionId, chunks: Mapping[ChunkId, bytes]) -> None:
        await self._call()
        await super().put_chunks(partition, chunks)

    async def put_snapshot(self, snapshot: Snapshot) -> None:
        await self._call()
        await super().put_snapshot(snapshot)
        there = self._simulated.partitions[snapshot.partition]
        kept = there.snapshots
        # The one before must be whole, and behind what was dropped: else the last copy would be lost, and no
        # program helps against that.
        if len(kept) > 1 and _is_usable(*kept[-2], there.first) and self.fate.damages_snapshot():
            rotten, checksum = kept[-1]
            kept[-1] = (attrs.evolve(rotten, head=rotten.head[:-1] + bytes([rotten.head[-1] ^ 1])), checksum)

    async def snapshots(self, partition: PartitionId) -> list[Snapshot]:
        await self._call()
        return await super().snapshots(partition)

    async def read_chunks(self, partition: PartitionId, chunks: Sequence[ChunkId]) -> dict[ChunkId, bytes]:
        await self._call()
        return await super().read_chunks(partition, chunks)

    async def buckets(self) -> list[Bucket]:
        await self._call()
        return await super().buckets()

    async def roll(self) -> int:
        await self._call()
        return await super().roll()

    async def drop(self, bucket: int) -> None:
        await self._call()
        await super().drop(bucket)


def _is_usable(snapshot: Snapshot, checksum: bytes, first: int) -> bool:
    return row_checksum(snapshot) == checksum and snapshot.position + 1 >= first
