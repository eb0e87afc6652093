"""What runs beside a life cycle that is measured: questions to the server, and exports of its database.

``ask`` asks the server one canned question after the other; ``export`` follows a PostgreSQL log into an
archive, as `querator analytics refresh --modest` does. Both print a line of JSON at ``--stop``.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import trio

from benchmarks.processes import QUEUE
from querator.analytics.directory import Archive
from querator.analytics.export import Exporter
from querator.analytics.parallel import remote_folders
from querator.client import Rejected, connect
from querator.env.real import real_env
from querator.log.postgres import PostgresLog

QUESTIONS = ("throughput", "waiting", "processing", "backlog", "retries", "kinds", "consumers_compared")
PAUSE = 0.2
"""Seconds between two questions, and between two exports."""


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


async def export(options: argparse.Namespace) -> dict[str, Any]:
    env = real_env()
    archive = Archive(env, Path(options.archive))
    store = PostgresLog(env, options.log)
    await store.open()
    exports = items = 0
    try:
        async with remote_folders(env, archive, 1, is_servers=True) as (folder,):
            exporter = Exporter(env, [store], archive.directory, folder=folder)
            while time.monotonic() < options.stop:
                done = await exporter.refresh()
                await folder.compact()
                exports += 1
                items += done.items
                await trio.sleep(PAUSE)
    finally:
        await store.aclose()
    return {"exports": exports, "events": items}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=("ask", "export"))
    parser.add_argument("--address", default="")
    parser.add_argument("--log", default="")
    parser.add_argument("--archive", default="")
    parser.add_argument("--stop", type=float, required=True)
    options = parser.parse_args(arguments)
    print(json.dumps(trio.run({"ask": ask, "export": export}[options.side], options)))


if __name__ == "__main__":
    main(sys.argv[1:])
