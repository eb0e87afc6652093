"""The long kill test: ``python -m tests.blackbox --minutes 20``: seed after seed, every fault, a ledger.

Ends with exit code 1 at the first promise that is broken, with its page and the command that does it again.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import trio

from tests.blackbox.ledger import Row, record, table
from tests.blackbox.run import folder_of
from tests.blackbox.scenarios import SCENARIOS, Scenario
from tests.broken_disks import NotHere


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.blackbox", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the first one")
    parser.add_argument("--seeds", type=int, default=0, help="how many; 0: until the minutes are over")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--times", type=int, default=5, help="strikes of a run")
    parser.add_argument("--only", default="", help="scenarios whose name contains this")
    parser.add_argument("--folder", type=Path, help="what runs leave behind goes here")
    parser.add_argument(
        "--record", metavar="WHAT", default="", help="add the run to the ledger, under this name"
    )
    options = parser.parse_args(arguments)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="querator-blackbox-"))
    chosen = [scenario for scenario in SCENARIOS if options.only in scenario.name]
    started = time.monotonic()
    end = started + options.minutes * 60
    runs = 0
    rows: list[Row] = []
    absent: dict[str, str] = {}
    seed = options.seed
    failed = False
    while not failed and not (options.seeds and seed >= options.seed + options.seeds):
        for scenario in chosen:
            if not options.seeds and time.monotonic() > end:
                break
            runs += 1
            failed = not _run(scenario, seed, options.times, folder, rows, absent)
            if failed:
                break
        else:
            seed += 1
            continue
        break
    print()
    print(table(rows))
    if options.record:
        seconds = time.monotonic() - started
        record(rows, options.record, seconds=seconds, runs=runs - len(absent), violations=int(failed))
    for name, why in absent.items():
        print(f"NOT TESTED: {name}: {why}")
    return 1 if failed else 0


def _run(
    scenario: Scenario, seed: int, times: int, folder: Path, rows: list[Row], absent: dict[str, str]
) -> bool:
    """One scenario; whether every promise was kept."""
    started = time.monotonic()
    print(f"seed {seed}: {scenario.name} x{times} ...", end=" ", flush=True)
    try:
        found = trio.run(scenario.run, folder_of(folder, scenario.name, seed), seed, times)
    except NotHere as reason:
        absent[scenario.name] = str(reason)
        print(f"not here: {reason}")
    except BaseException as error:  # noqa: BLE001 - told, with the command that repeats it
        print("FAILED")
        print(_text(error))
        options = f"--seed {seed} --seeds 1 --times {times} --only '{scenario.name}'"
        print(f"again: python -m tests.blackbox {options}")
        return False
    else:
        rows += found
        print(
            f"good, {time.monotonic() - started:.1f} s, {sum(row.acknowledged for row in found)} acknowledged"
        )
    return True


def _text(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    sys.exit(main())
