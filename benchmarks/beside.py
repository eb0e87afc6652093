"""What runs beside a life cycle that is measured, one after the other, as nobody would: far too often.

``ask`` asks the server canned questions; ``refresh`` exports its database with `querator analytics refresh`,
again and again, as cron would every few minutes; ``query`` asks the archive with `querator analytics sql` and
`report`, as an analyst at the same machine. Each prints a line of JSON at ``--stop``.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import trio

from benchmarks.processes import QUEUE
from querator.client import Rejected, connect

QUESTIONS = ("throughput", "waiting", "processing", "backlog", "retries", "kinds", "consumers_compared")
COMMANDS: Sequence[Sequence[str]] = (
    ("sql", "FROM waiting(NULL, width := INTERVAL 1 SECOND)"),
    ("report", QUEUE),
    ("sql", "SELECT outcome, count(*), avg(waiting), avg(processing) FROM items GROUP BY ALL"),
)
PAUSE = 0.2
"""Seconds between two of them."""


async def ask(options: argparse.Namespace) -> dict[str, Any]:
    took: list[float] = []
    refused: dict[str, int] = {}
    async with connect(options.address, client="bench-ask") as client:
        number = 0
        while time.monotonic() < options.stop:
            began = time.monotonic()
            try:
                await client.ask(QUESTIONS[number % len(QUESTIONS)], QUEUE)
                took.append(time.monotonic() - began)
            except Rejected as error:
                refused[error.code] = refused.get(error.code, 0) + 1
            number += 1
            await trio.sleep(PAUSE)
    return {"answered": len(took), "slowest_ms": max(took, default=0.0) * 1e3, "refused": refused}


async def refresh(options: argparse.Namespace) -> dict[str, Any]:
    codes = await _commands(options, [("refresh", "--log", options.log)])
    manifest = Path(options.archive) / "manifest.json"
    parts = json.loads(manifest.read_bytes())["parts"] if manifest.exists() else []
    return {"codes": codes, "refreshes": len(codes), "events": sum(part["items"] for part in parts)}


async def query(options: argparse.Namespace) -> dict[str, Any]:
    codes = await _commands(options, COMMANDS)
    return {"queries": len(codes), "failed": sum(map(bool, codes))}


async def _commands(options: argparse.Namespace, commands: Sequence[Sequence[str]]) -> list[int]:
    """Exit codes of `querator analytics …`, of one after the other until the time is over. The last one is
    ended then: what it still did would be felt by the next round."""
    codes = []
    with trio.move_on_after(options.stop - time.monotonic()):
        for arguments in cycle(commands):
            command = [sys.executable, "-m", "querator", "analytics", *arguments]
            done = await trio.run_process(
                [*command, "--archive", options.archive],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=False,
            )
            codes.append(done.returncode)
            await trio.sleep(PAUSE)
    return codes


SIDES = {"ask": ask, "refresh": refresh, "query": query}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=SIDES)
    parser.add_argument("--address", default="")
    parser.add_argument("--log", default="")
    parser.add_argument("--archive", default="")
    parser.add_argument("--stop", type=float, required=True)
    options = parser.parse_args(arguments)
    print(json.dumps(trio.run(SIDES[options.side], options)))


if __name__ == "__main__":
    main(sys.argv[1:])
