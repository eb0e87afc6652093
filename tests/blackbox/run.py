"""One run: faults strike a server under load; then all is healed, drained and judged."""

from collections.abc import Sequence
from pathlib import Path

from tests.blackbox.arena import Arena
from tests.blackbox.faults import Fault
from tests.blackbox.judge import Judgement, judge
from tests.blackbox.ledger import Row
from tests.blackbox.page import write_page


class RunFailed(AssertionError):
    """A promise was broken; the text is the page."""


async def strike(arena: Arena, faults: Sequence[Fault]) -> None:
    """One fault after the other, with work done in between. Raises RunFailed."""
    try:
        await arena.more()
        for fault in faults:
            felt = _events(arena, fault)
            arena.tell(f"# {fault.name}")
            await fault.strike(arena)
            await arena.more()
            if fault.felt and _events(arena, fault) == felt:
                raise RunFailed(f"{fault.name}: the journal has no more of {fault.felt}: it was none")
    except TimeoutError as error:
        raise await _given_up(arena, error) from error


def _events(arena: Arena, fault: Fault) -> int:
    return sum(server.events()[event] for server in arena.servers for event in fault.felt)


async def conclude(arena: Arena, name: str, times: int, note: str = "") -> Row:
    """Drain and judge. Raises RunFailed with the page of a run that broke a promise."""
    try:
        await arena.drain()
        await arena.close()
    except TimeoutError as error:
        raise await _given_up(arena, error) from error
    return report(arena, name, times, await judge(arena), note)


async def _given_up(arena: Arena, error: TimeoutError) -> RunFailed:
    """The page of a run that hangs: what is not completed may tell why."""
    arena.tell(f"given up: {error}")
    for client in arena.clients:
        client.end()
    for server in arena.servers:
        server.end()
    judgement = await judge(arena)
    judgement.faults.insert(0, f"L7: {error}")
    return RunFailed(write_page(arena, "a run that hangs", judgement))


def report(arena: Arena, name: str, times: int, judgement: Judgement, note: str = "") -> Row:
    """The line of a run that kept every promise."""
    if judgement.faults:
        raise RunFailed(f"{write_page(arena, name, judgement)}\n(in {arena.folder / 'failure.txt'})")
    return judgement.row(name, times, note)


def folder_of(base: Path, fault: str, seed: int) -> Path:
    """Where a run keeps what it leaves."""
    return base / f"{''.join(c if c.isalnum() else '-' for c in fault)}-{seed}"
