"""Owners, a blind stealer and a roller race for one partition over slowed inserts (DESIGN: decision 6).

A log check alone cannot see a broken fence: the log is dense and chained in any case. What is
checked is what each claimant *read* before it claimed: everything of an older owner that lands
behind the tail a newer one read is a lost fence.
"""

import random
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeAlias

import attrs
import psycopg
import pytest
import trio

from querator.core.ids import PartitionId, Position
from querator.env.real import real_env
from querator.errors import AppendOutcomeUnknown, LogUnavailable
from querator.log.postgres import PostgresLog
from querator.log.postgres.statements import migrations
from querator.log.records import Record, Tail
from querator.log.store import Verdict
from tests.log.records import ZEROS, make_record
from tests.postgres import Cluster, fresh_database, shared_cluster

PARTITION = PartitionId(1)
SLOWED = """
    create function public.slow() returns trigger language plpgsql as
        $$ begin perform pg_sleep(random() * 0.003); return new; end $$;
    create trigger slow before insert on querator.log for each row execute function public.slow();
"""


@attrs.define
class Race:
    """What happened, written down by the racers."""

    claims: dict[tuple[int, int], int] = attrs.field(factory=dict)
    """(position, nonce) of a claim that got in: the tail it had read."""
    acknowledged: dict[int, bytes] = attrs.field(factory=dict)
    """Position: hash, of every record that somebody was told is theirs."""
    counts: Counter[str] = attrs.field(factory=Counter)


Racer: TypeAlias = Callable[[PostgresLog, Race, random.Random], Coroutine[Any, Any, None]]


async def append(log: PostgresLog, record: Record, race: Race) -> bool:
    """Send the same record until the answer is final; whether it is ours."""
    while True:
        try:
            (verdict,) = await log.append([record])
        except (AppendOutcomeUnknown, LogUnavailable):
            race.counts["unknown"] += 1
            continue
        if verdict is Verdict.BUSY:
            race.counts["busy"] += 1
            continue
        if verdict is Verdict.MINE:
            assert race.acknowledged.setdefault(record.position, record.hash) == record.hash
        return verdict is Verdict.MINE


async def claim(log: PostgresLog, race: Race, rng: random.Random) -> Tail | None:
    try:
        tail = await log.tail(PARTITION) or Tail(Position(0), ZEROS, 0)
    except LogUnavailable:
        return None
    nonce = rng.getrandbits(62)
    record = make_record(PARTITION, tail.position + 1, tail.hash, nonce=nonce, events=b"claimed")
    if not await append(log, record, race):
        return None
    race.claims[record.position, nonce] = tail.position
    return Tail(record.position, record.hash, nonce)


async def own(log: PostgresLog, race: Race, rng: random.Random) -> None:
    """Claim, append until refused or bored, pause, again."""
    while True:
        tail = await claim(log, race, rng)
        while tail is not None:
            if rng.random() < 0.15:
                await trio.sleep(rng.random() * 0.01)
            record = make_record(PARTITION, tail.position + 1, tail.hash, nonce=tail.nonce)
            if not await append(log, record, race):
                race.counts["refused"] += 1
                break
            race.counts["appended"] += 1
            tail = Tail(record.position, record.hash, tail.nonce)
            if rng.random() < 0.1:
                break


async def steal(log: PostgresLog, race: Race, rng: random.Random) -> None:
    """Claim without asking anybody, again and again."""
    while True:
        await trio.sleep(rng.random() * 0.004)
        if await claim(log, race, rng) is not None:
            race.counts["stolen"] += 1


async def roll(log: PostgresLog, race: Race, rng: random.Random) -> None:
    """Open buckets and drop old ones, the last record's among them, while the others race."""
    while True:
        await trio.sleep(rng.random() * 0.2)
        try:
            await log.roll()
            race.counts["rolled"] += 1
            if rng.random() < 0.3:
                await log.drop((await log.buckets())[0].number)
                race.counts["dropped"] += 1
        except LogUnavailable:
            race.counts["not_rolled"] += 1


async def kill_backends(cluster: Cluster, database: str, race: Race, rng: random.Random) -> None:
    """Terminate somebody's backend now and then, so that outcomes are unknown."""

    def terminate() -> None:
        with cluster.admin() as connection:
            connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = %s and usename <> 'postgres' order by random() limit 1",
                (database,),
            )

    while True:
        await trio.sleep(rng.random() * 0.1)
        await trio.to_thread.run_sync(terminate)
        race.counts["terminated"] += 1


ENOUGH = {"appended": 50, "refused": 20, "stolen": 20, "rolled": 6, "dropped": 1, "rollovers_met": 1}
RACES_MAX = 20
"""With a bug planted; the first one finds it, as a rule."""
SECONDS_MAX = 90.0
"""A busy machine may need longer than it should to see enough."""


async def run_race(
    cluster: Cluster,
    database: str,
    seconds: float,
    seed: int,
    *,
    kill: bool,
    enough: Mapping[str, int] = ENOUGH,
) -> Race:
    """Race for ``seconds``, and longer when not enough has happened by then."""
    with psycopg.connect(cluster.dsn(database, "postgres"), autocommit=True) as connection:
        connection.execute(SLOWED)
    race = Race()
    racers: list[Racer] = [own, own, own, steal, roll]
    logs = [PostgresLog(real_env(), cluster.dsn(database)) for _ in racers]
    for log in logs:
        await log.open()
    with trio.move_on_after(seconds + SECONDS_MAX):
        async with trio.open_nursery() as nursery:
            for number, (racer, log) in enumerate(zip(racers, logs, strict=True)):
                nursery.start_soon(racer, log, race, random.Random(seed * 100 + number))
            if kill:
                nursery.start_soon(kill_backends, cluster, database, race, random.Random(seed))
            await trio.sleep(seconds)
            wanted = {**enough, "unknown": int(kill)}
            while any(race.counts[what] < count for what, count in wanted.items()):
                await trio.sleep(0.05)
                race.counts["rollovers_met"] = sum(log.counts.rollovers for log in logs)
            nursery.cancel_scope.cancel()
    for log in logs:
        await log.aclose()
    return race


def check_history(cluster: Cluster, database: str, race: Race) -> None:
    """The history against what the racers know. Dropped buckets left their last records in querator.head."""
    with psycopg.connect(cluster.dsn(database, "postgres")) as connection:
        rows = connection.execute(
            "select position, nonce, events = 'claimed', previous_hash, hash, bucket"
            " from querator.log where partition = %s order by position",
            (PARTITION,),
        ).fetchall()
        heads = connection.execute(
            "select bucket, first_position, position, hash from querator.head"
            " where partition = %s order by bucket",
            (PARTITION,),
        ).fetchall()
        updates = connection.execute(
            "select coalesce(sum(n_tup_upd), 0) from pg_stat_user_tables"
            " where schemaname = 'querator' and (relname like 'log%' or relname in ('head', 'bucket'))"
        ).fetchone()
    expected = rows[0][0]
    if expected > 1:
        assert heads, "history began in a bucket that is gone, and nobody wrote down where it ended"
    for number, head in enumerate(heads):
        assert head[1] == (heads[number - 1][2] + 1 if number else 1), "buckets' stretches meet"
    late: list[int] = []
    owner = None
    previous = next((bytes(head[3]) for head in heads if head[2] == expected - 1), ZEROS)
    for position, nonce, is_claim, previous_hash, digest, _ in rows:
        assert position == expected, f"a gap or a fork at {position}, expected {expected}"
        assert bytes(previous_hash) == previous, f"{position} does not chain"
        assert race.acknowledged.get(position, bytes(digest)) == bytes(digest), (
            f"{position} was acknowledged otherwise"
        )
        expected, previous = position + 1, bytes(digest)
        if is_claim:
            assert race.claims.get((position, nonce), position - 1) == position - 1, (
                "a claimant's tail was not final"
            )
            owner = nonce
        elif owner is not None and nonce != owner:
            late.append(position)
    assert late == [], "records of an old owner behind a newer claim"
    beyond = [position for position in race.acknowledged if position >= expected]
    assert beyond == [], "acknowledged and not there"
    assert updates == (0,)


def bug(function: str, line: str, wrong: str = "") -> str:
    """The definition of a function of the schema with one line replaced."""
    script = migrations()[0][2]
    start = script.index(f"create function querator.{function}")
    definition = script[start : script.index("\n$$;", start) + len("\n$$;")]
    assert definition.count(line) == 1
    return definition.replace("create function", "create or replace function").replace(line, wrong)


BUGS = {
    "no_seal": bug(
        "open_bucket", "execute format('alter table querator.%I add constraint sealed", "perform format('"
    ),
    "no_wait_for_inserts": bug("open_bucket", "in access exclusive mode", "in access share mode"),
}


@pytest.mark.parametrize("planted", BUGS)
async def test_the_race_finds_a_planted_bug(planted: str) -> None:
    cluster = shared_cluster()
    with pytest.RaisesGroup(AssertionError, flatten_subgroups=True, allow_unwrapped=True):
        for seed in range(1, RACES_MAX + 1):
            with fresh_database(cluster) as database:
                with cluster.admin(database) as connection:
                    connection.execute(BUGS[planted].encode())
                race = await run_race(cluster, database, 1.0, seed, kill=False, enough={"rolled": 3})
                check_history(cluster, database, race)


@pytest.mark.parametrize(
    ("seconds", "kill"),
    [
        pytest.param(2.0, False, id="calm"),
        pytest.param(2.0, True, id="with_killed_backends"),
        pytest.param(60.0, True, id="long", marks=pytest.mark.long),
    ],
)
async def test_no_record_of_an_old_owner_lands_behind_a_tail_that_a_newer_one_read(
    seconds: float, kill: bool
) -> None:
    cluster = shared_cluster()
    with fresh_database(cluster) as database:
        race = await run_race(cluster, database, seconds, seed=1, kill=kill)
        check_history(cluster, database, race)
    assert {what: race.counts[what] for what, count in ENOUGH.items() if race.counts[what] < count} == {}
    assert race.counts["unknown"] > 0 or not kill, race.counts
    print(dict(race.counts))
