"""The ledger: what was run, and what it found. Campaigns that were recorded are lines of ``ledger.jsonl``,
runs with real processes those of ``tests/blackbox/ledger.jsonl``; ``docs/reliability.md`` is made of them, of
``seeds.txt`` and of ``planted.txt``, and never typed."""

import json
import subprocess
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from simulations.campaign import Tally
from simulations.checkers import CHECKERS, REPLAY
from simulations.plants import PLANTS
from simulations.seeds import read_findings, read_lessons

_HERE: Final = Path(__file__).parent
LEDGER: Final = _HERE / "ledger.jsonl"
PROCESSES: Final = _HERE.parent / "tests" / "blackbox" / "ledger.jsonl"
PAGE: Final = _HERE.parent / "docs" / "reliability.md"

_FAULTS: Final = {
    "node.crashed": "a node killed, as by SIGKILL",
    "node.paused": "a node stopped for up to 12 s, as by SIGSTOP",
    "node.drained": "a node told to stop in the middle of its work, as by SIGTERM",
    "node.all_crashed": "all nodes killed at once",
    "node.isolated": "a node that did not reach the store, and its clients did reach it",
    "node.hidden": "a node that no client reached, and it did reach the store",
    "owner.took_over": "another node took over",
    "owner.handed_over": "of these, from one that had stopped in order",
    "owner.stale_resumed": "an owner that woke up when another one had taken over",
    "partition.stolen": "a partition claimed by a rival while its owner lived",
    "server.killed": "the store's server killed",
    "server.failed_over": "the store's server replaced by a standby",
    "commit.slow": "a commit that took up to 2 s",
    "commit.unavailable": "an append that the store refused",
    "commit.unknown_lost": "an append of unknown outcome, not written",
    "commit.unknown_late": "an append of unknown outcome, written later by a zombie",
    "commit.unknown_kept": "an append of unknown outcome, written",
    "link.cut": "a connection that broke",
    "link.held": "a connection that carried nothing for up to 12 s",
    "snapshot.rotten": "a snapshot damaged where it is stored",
    "consumer.vanished": "a consumer gone with what it held",
    "hostile.forged": "a settlement with a forged token",
    "hostile.stolen": "a settlement with somebody else's token",
    "produce.duplicate": "an item produced again with its dedupe key",
}


def day_and_commit() -> dict[str, Any]:
    """How an entry begins."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True, cwd=_HERE
    ).stdout.strip()
    return {"date": datetime.now(UTC).date().isoformat(), "commit": commit}


def record(tally: Tally, profile: str, what: str) -> None:
    """Add a campaign."""
    entry = day_and_commit() | {
        "what": what,
        "profile": profile,
        "runs": tally.seeds,
        "virtual_seconds": round(tally.virtual_seconds),
        "steps": tally.steps,
        "acknowledged": tally.acknowledged,
        "delivered": tally.delivered,
        "violations": len(tally.failed),
        "marks": {name: tally.marks[name] for name in _FAULTS if tally.marks[name]},
    }
    with LEDGER.open("a") as ledger:
        ledger.write(json.dumps(entry, separators=(",", ":")) + "\n")


def read_entries(path: Path) -> list[dict[str, Any]]:
    """All recorded runs, oldest first."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def render() -> str:
    """The page."""
    entries, real = read_entries(LEDGER), read_entries(PROCESSES)
    marks: Counter[str] = Counter()
    for entry in entries:
        marks.update(entry["marks"])
    unknown = sum(marks[f"commit.{name}"] for name in ("unknown_lost", "unknown_late", "unknown_kept"))
    lines = [
        "# Reliability: the ledger",
        "",
        "Made by `python -m simulations --ledger`; do not edit.",
        "What is promised, and how to run it: [simulations/README.md](../simulations/README.md).",
        "",
        "## In all",
        "",
        "| | |",
        "|---|---:|",
        f"| runs | {sum(entry['runs'] for entry in entries):,} |",
        f"| virtual hours | {sum(entry['virtual_seconds'] for entry in entries) / 3600:,.1f} |",
        f"| steps of the scheduler | {sum(entry['steps'] for entry in entries):,} |",
        f"| items acknowledged | {sum(entry['acknowledged'] for entry in entries):,} |",
        f"| items delivered | {sum(entry['delivered'] for entry in entries):,} |",
        f"| kill cycles, simulated | {marks['node.crashed']:,} |",
        f"| kill cycles, real processes | {sum(entry['kills'] for entry in real):,} |",
        f"| appends of unknown outcome | {unknown:,} |",
        f"| checkers | {len(CHECKERS) + len((REPLAY,))} |",
        "",
        "## Faults",
        "",
        "| fault | times |",
        "|---|---:|",
        *(f"| {text} | {marks[name]:,} |" for name, text in _FAULTS.items()),
        "",
        "## Bugs found",
        "",
        "Each case is kept in `simulations/seeds.txt`, with its options, and run again with every change.",
        "",
        "| found | promise | seed | what was wrong | mended by |",
        "|---|---|---:|---|---|",
        *(
            f"| {bug.date} | {bug.promise} | {bug.case.options.seed} | {bug.text} | {bug.fix} |"
            for bug in read_lessons()
        ),
        "",
        "## Planted bugs",
        "",
        f"{len(PLANTS)} plausible mistakes are put into the program on purpose, one at a time, to see that",
        "they are found: the test of the tests.",
        "",
        "| bug | what goes wrong | promise broken first | runs until found |",
        "|---|---|---|---:|",
        *(
            f"| `{found.plant}` | {_says(found.plant)} | {found.promise} | {found.seeds} |"
            for found in read_findings()
        ),
        "",
        "## Campaigns",
        "",
        "| date | commit | what | runs | virtual hours | kill cycles | unknown | violations |",
        "|---|---|---|---:|---:|---:|---:|---:|",
        *(_row(entry) for entry in entries),
        "",
        *_of_processes(real),
    ]
    return "\n".join(lines) + "\n"


def _of_processes(entries: list[dict[str, Any]]) -> list[str]:
    faults: Counter[str] = Counter()
    for entry in entries:
        faults.update(entry["faults"])
    return [
        "## Real processes",
        "",
        "Servers and clients as processes, real databases, sockets through a proxy that does harm",
        "(`python -m tests.blackbox`); what is left is judged by the same checkers.",
        "",
        "| fault | times |",
        "|---|---:|",
        *(f"| {fault} | {times:,} |" for fault, times in faults.items()),
        "",
        "| date | commit | what | runs | minutes | kills | acknowledged | unknown | stale | violations |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|---:|",
        *(
            f"| {entry['date']} | {entry['commit']} | {entry['what']} | {entry['runs']:,} | "
            f"{entry['seconds'] / 60:.1f} | {entry['kills']:,} | {entry['acknowledged']:,} | "
            f"{entry['unknown']:,} | {entry['stale_refused']:,} | {entry['violations']} |"
            for entry in entries
        ),
    ]


def _says(plant: str) -> str:
    return (PLANTS[plant].__doc__ or "").strip()


def _row(entry: dict[str, Any]) -> str:
    marks = entry["marks"]
    unknown = sum(marks.get(f"commit.{name}", 0) for name in ("unknown_lost", "unknown_late", "unknown_kept"))
    return (
        f"| {entry['date']} | {entry['commit']} | {entry['what']} | {entry['runs']:,} | "
        f"{entry['virtual_seconds'] / 3600:.1f} | {marks.get('node.crashed', 0):,} | {unknown:,} | "
        f"{entry['violations']} |"
    )
