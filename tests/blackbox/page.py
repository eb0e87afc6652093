"""The page of a run that failed: what was broken, what had been done, the life of each item concerned."""

import re
from typing import Any

from simulations.checkers.history import History
from tests.blackbox.arena import Arena
from tests.blackbox.judge import Judgement

ITEMS_MAX = 10
FAULTS_MAX = 50
_NAMED = re.compile(r"(?:item )?\b(\d+)\.(\d+)\b")
_PAYLOAD = re.compile(r"b'([^']+)'")


def write_page(arena: Arena, name: str, judgement: Judgement) -> str:
    """Write ``failure.txt`` into the run's folder; the text."""
    parts = [
        f"# {name}, seed {arena.seed}: {len(judgement.faults)} faults",
        f"{judgement.acknowledged} acknowledged, {judgement.completed} completed, {judgement.lost} lost",
        *judgement.faults[:FAULTS_MAX],
        "",
        "## What was done (seconds since the start)",
        *(f"{at - arena.started:10.6f}  {text}" for at, text in arena.story),
    ]
    for partition, number in _concerned(judgement)[:ITEMS_MAX]:
        parts += ["", f"## Item {partition}.{number}", *_timeline(arena, judgement, partition, number)]
    parts += ["", "## Events of the server's journal"]
    parts += [
        f"{count:6}  {event}" for server in arena.servers for event, count in sorted(server.events().items())
    ]
    text = "\n".join(parts) + "\n"
    (arena.folder / "failure.txt").write_text(text)
    return text


def _concerned(judgement: Judgement) -> list[tuple[int, int]]:
    """The items that the faults name, by number or by payload."""
    by_payload = {
        item.payload.decode(): (history.partition, item.number)
        for history in judgement.histories.values()
        for item in history.items.values()
    }
    found: dict[tuple[int, int], None] = {}
    for fault in judgement.faults:
        for partition, number in _NAMED.findall(fault):
            if int(partition) in judgement.histories:
                found[int(partition), int(number)] = None
        for payload in _PAYLOAD.findall(fault):
            if payload in by_payload:
                found[by_payload[payload]] = None
    return list(found)


def _timeline(arena: Arena, judgement: Judgement, partition: int, number: int) -> list[str]:
    """What the log says of it and what clients did with it, in one order of time."""
    moments: list[tuple[float, str]] = []
    history = judgement.histories[partition]
    item = history.items.get(number)
    if item is not None:
        moments += _logged(arena, history, number)
    payload = item.payload.decode() if item is not None else ""
    calls: dict[str, str] = {}
    for line in judgement.account.lines:
        text = _about(line, partition, number, payload, calls)
        if text:
            moments.append((line["at"], f"{line['who']:>5}  {text}"))
    return [f"{at - arena.started:10.6f}  {text}" for at, text in sorted(moments)]


def _logged(arena: Arena, history: History, number: int) -> list[tuple[float, str]]:
    return [
        (
            step.at / 1e6 - arena.epoch,
            f"  log  record {step.position}: {step.what} {step.why}, reservation {step.named}: {step.after}",
        )
        for step in history.steps
        if step.item == number
    ]


def _about(line: dict[str, Any], partition: int, number: int, payload: str, calls: dict[str, str]) -> str:
    if "call" in line:
        is_ours = (
            payload in line["items"]
            if line["do"] == "produce"
            else line["reservation"][0] == partition and number in line["items"]
        )
        if is_ours:
            calls[line["call"]] = line["do"]
            return f"{line['do']} {line.get('reservation', '')}"
        return ""
    if "end" in line:
        do = calls.get(line["end"])
        return f"{do}: {line['outcome']} {line.get('why', '')}" if do else ""
    if line["note"] == "push" and line["reservation"][0] == partition and number in line["items"]:
        return f"received by {line['client']} {line['reservation']}"
    return ""
