"""The history of a run: a line of JSON for each call and each outcome, as the clients saw them.

Every line is one write to a file opened for appending, so that a client that is killed leaves all that
it had seen. Moments are CLOCK_MONOTONIC, which all processes of a host share. A call is ``ok``, ``fail``
(nothing happened) or ``unknown``; one without an outcome is unknown as well.
"""

import json
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import attrs

from simulations.observations import Observations, Production, Push, Settlement


class Recorder:
    """Writes the history of one process."""

    def __init__(self, path: Path, process: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._process = process
        self._calls = 0

    def call(self, do: str, **fields: Any) -> str:
        """A call is about to be made; its name."""
        self._calls += 1
        name = f"{self._process}/{self._calls}"
        self._write({"call": name, "do": do, **fields})
        return name

    def end(self, call: str, outcome: str, **fields: Any) -> None:
        """``outcome``: ok | fail | unknown."""
        self._write({"end": call, "outcome": outcome, **fields})

    def note(self, what: str, **fields: Any) -> None:
        """Something that nobody asked for: a push, a connection lost."""
        self._write({"note": what, **fields})

    def _write(self, line: dict[str, Any]) -> None:
        line = {"at": time.monotonic(), "who": self._process, **line}
        os.write(self._file, json.dumps(line, separators=(",", ":")).encode() + b"\n")


class Tail:
    """Counts what the history has come to while it grows: what a nemesis waits for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self._calls: dict[str, tuple[str, int]] = {}
        self.acknowledged = 0
        """Items whose production was acknowledged."""
        self.completed = 0
        """Items whose completion was."""
        self.unknown = 0
        """Calls that ended without an answer either way."""

    def look(self) -> None:
        """Take in what has been written since."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._read)
                content = file.read()
        except FileNotFoundError:
            return
        whole = content[: content.rfind(b"\n") + 1]
        self._read += len(whole)
        for text in whole.splitlines():
            line = json.loads(text)
            if "call" in line:
                self._calls[line["call"]] = (line["do"], len(line.get("items", ())))
            elif "end" in line:
                self._take(line)

    def producing(self, processes: Iterable[str]) -> int:
        """Produce calls of these processes that have no outcome yet."""
        alive = tuple(f"{process}/" for process in processes)
        return sum(do == "produce" and call.startswith(alive) for call, (do, _) in self._calls.items())

    def _take(self, line: dict[str, Any]) -> None:
        do, items = self._calls.pop(line["end"], ("", 0))
        if line["outcome"] == "unknown":
            self.unknown += 1
        elif line["outcome"] == "ok" and do == "produce":
            self.acknowledged += items
        elif line["outcome"] == "ok" and do == "complete":
            self.completed += items


@attrs.define
class Account:
    """A history, read: for the checkers, and for a person."""

    lines: list[dict[str, Any]]
    seen: Observations
    completions: dict[tuple[int, int], list[int]]
    """(partition, item) to the reservations whose holder was told that it is completed."""
    unknown: int
    """Calls whose outcome was not told."""


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """A line that a kill cut short is no line."""
    with path.open("rb") as file:
        for text in file:
            if text.endswith(b"\n"):
                yield json.loads(text)


def read_account(path: Path) -> Account:
    """The whole history of a run that has ended."""
    lines = list(read_lines(path))
    account = Account(lines, Observations(), {}, 0)
    calls: dict[str, dict[str, Any]] = {}
    for line in lines:
        if "call" in line:
            calls[line["call"]] = line
            if line["do"] == "produce":
                for payload in line["items"]:
                    account.seen.attempted[payload.encode()] = line["queue"]
        elif "end" in line:
            _end(account, calls.pop(line["end"]), line)
        elif line["note"] == "push":
            _push(account, line)
    account.unknown += len(calls)
    return account


def _end(account: Account, call: dict[str, Any], end: dict[str, Any]) -> None:
    seen = account.seen
    if end["outcome"] == "unknown":
        account.unknown += 1
    elif call["do"] == "produce":
        payloads = [payload.encode() for payload in call["items"]]
        if end["outcome"] == "fail":
            seen.refused.update(dict.fromkeys(payloads, end["why"]))
            return
        seen.productions.append(
            Production(
                end["partition"],
                tuple(end["numbers"]),
                tuple(payloads),
                end["duplicates"],
                call["at"],
                end["at"],
            )
        )
    elif end["outcome"] == "ok":
        partition, nonce, reservation = call["reservation"]
        seen.settlements.append(
            Settlement(
                call["do"],
                partition,
                reservation,
                nonce,
                call["at"],
                end["at"],
                len(call["items"]),
                is_own=True,
            )
        )
        if call["do"] == "complete":
            for number in call["items"]:
                account.completions.setdefault((partition, number), []).append(reservation)


def _push(account: Account, line: dict[str, Any]) -> None:
    partition, nonce, reservation = line["reservation"]
    account.seen.pushes.append(
        Push(
            line["client"],
            partition,
            reservation,
            nonce,
            tuple(line["items"]),
            tuple(payload.encode() for payload in line["payloads"]),
            tuple(line["attempts"]),
            line["deadline"],
            line["asked"],
            line["at"],
        )
    )
