"""The verdict on a run: from the log that is left and from what the clients wrote down, nothing else.

The checkers are the simulations' own (simulations/checkers), over a history in the same shape; besides
them stand the counts of the ledger, which share no code with them, ``querator log verify`` as an
operator runs it, and an attempt to write into the log as each owner that was fenced.
"""

import json
import subprocess
import sys
from collections import Counter

import attrs
import trio

from querator.core.ids import PartitionId, Position
from querator.errors import AppendOutcomeUnknown
from querator.log.records import Record
from querator.log.store import LogStore, Verdict
from simulations.checkers import CHECKERS
from simulations.checkers.evidence import Evidence, Terms
from simulations.checkers.history import History, read_histories
from tests.blackbox.arena import Arena
from tests.blackbox.ledger import Row
from tests.blackbox.record import Account, read_account
from tests.log.records import make_chain

LOST = "S1: acknowledged and not in the log: "
STALE_TRIES_MAX = 20
"""Fenced owners of a partition in whose name an append is tried."""


@attrs.define(kw_only=True)
class Judgement:
    """``faults`` empty: every promise was kept."""

    acknowledged: int
    completed: int
    unknown: int
    lost: int
    twice: int
    """Items that are completed twice in the log, or whose completion was confirmed to two holders."""
    stale_refused: int
    claims: int
    faults: list[str]
    histories: dict[int, History]
    account: Account

    def row(self, fault: str, times: int, note: str = "") -> Row:
        """Its line in the ledger."""
        return Row(
            fault=fault,
            times=times,
            acknowledged=self.acknowledged,
            completed=self.completed,
            unknown=self.unknown,
            lost=self.lost,
            twice=self.twice,
            stale_refused=self.stale_refused,
            note=note,
        )


async def judge(arena: Arena, *, is_drained: bool = True) -> Judgement:
    """Of a run whose servers have ended. ``is_drained``: everything was to be completed."""
    account = read_account(arena.history)
    async with arena.open_log() as log:
        histories = await read_histories(log, keyed=())
        stale = await try_stale_appends(log, histories)
    # The log's clock is not the clients': that an answer never came before its commit is the simulations'.
    evidence = Evidence(Terms(), account.seen, histories)
    faults = [fault for check in CHECKERS.values() for fault in check(evidence)]
    faults += stale.faults
    faults += await trio.to_thread.run_sync(_verify, arena)
    lost = _lost(account, histories)
    twice = _completed_twice(account, histories)
    faults += [f"{LOST}{payload!r}" for payload in lost]
    faults += [f"S3: completed twice: {item}" for item in twice]
    if is_drained:
        faults += _unfinished(histories)
    faults += [
        f"{client.name} printed: {client.output()}"
        for client in (*arena.clients, *arena.left)
        if client.output()
    ]
    return Judgement(
        acknowledged=sum(len(production.payloads) for production in account.seen.productions),
        completed=sum(history.live.completed for history in histories.values()),
        unknown=account.unknown,
        lost=len(lost),
        twice=len(twice),
        stale_refused=stale.refused,
        claims=sum(len(history.claims) for history in histories.values()),
        faults=faults,
        histories=histories,
        account=account,
    )


def _lost(account: Account, histories: dict[int, History]) -> list[bytes]:
    """Acknowledged payloads that no partition has."""
    there = Counter(item.payload for history in histories.values() for item in history.items.values())
    return [
        payload
        for production in account.seen.productions
        for payload in production.payloads
        if not there[payload]
    ]


def _completed_twice(account: Account, histories: dict[int, History]) -> list[str]:
    """By the log: two completions of an item, or of a payload. By the clients: two holders believed."""
    logged = Counter(
        history.items[step.item].payload
        for history in histories.values()
        for step in history.steps
        if step.what == "completed"
    )
    found = [repr(payload) for payload, times in logged.items() if times > 1]
    for (partition, number), reservations in account.completions.items():
        if len(dict.fromkeys(reservations)) > 1:
            found.append(f"{partition}.{number}, confirmed to the holders of {reservations}")
    return found


def _unfinished(histories: dict[int, History]) -> list[str]:
    return [
        f"L1: item {history.partition}.{item.number} is {item.state} at the end"
        for history in histories.values()
        for item in history.items.values()
        if item.state != "completed"
    ]


def _verify(arena: Arena) -> list[str]:
    command = [sys.executable, "-m", "querator", "log", "verify", "--json", *arena.verify_arguments()]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode == 0 and json.loads(done.stdout)["ok"]:
        return []
    return [f"querator log verify: exit code {done.returncode}: {done.stdout}{done.stderr}"]


# --- Appends in the name of those who are fenced ---------------------------------------------------


@attrs.define
class StaleAppends:
    """What became of them."""

    refused: int = 0
    faults: list[str] = attrs.field(factory=list)


async def try_stale_appends(log: LogStore, histories: dict[int, History]) -> StaleAppends:
    """For each claim: what its predecessor would have appended next, had it not noticed. Refused, all."""
    found = StaleAppends()
    for history in histories.values():
        for position, nonce, _ in history.claims[1:][-STALE_TRIES_MAX:]:
            (before,) = await log.read(
                PartitionId(history.partition),
                Position(position - 1),
                records_max=1,
                bytes_max=1,
                payloads=False,
            )
            if before.nonce == nonce:
                found.faults.append(f"S8: the claim at {position} of {history.partition} has an old nonce")
            (stale,) = make_chain(history.partition, 1, after=before, nonce=before.nonce)
            verdict = await _append(log, stale)
            if verdict is Verdict.NOT_MINE:
                found.refused += 1
            else:
                found.faults.append(
                    f"S6: an append of the owner before record {position} of {history.partition} "
                    f"was answered {verdict.name}"
                )
    return found


async def _append(log: LogStore, record: Record) -> Verdict:
    while True:
        try:
            (verdict,) = await log.append([record])
        except AppendOutcomeUnknown:
            continue
        if verdict is not Verdict.BUSY:
            return verdict
