"""``python -m simulations``: see simulations/README.md."""

import argparse
import sys

from simulations import ledger
from simulations.campaign import Tally, campaign
from simulations.case import Case
from simulations.checkers import CHECKERS, REPLAY
from simulations.crash_points import CORE_SCENARIOS, visit
from simulations.marks import missing
from simulations.minimise import minimise
from simulations.options import PROFILES, Options
from simulations.outcome import Exit, Outcome
from simulations.plants import PLANTS
from simulations.scenarios import SCENARIOS
from simulations.search import SEEDS_MAX, all_plants, find_plants
from simulations.seeds import read_findings, write_findings
from simulations.trace import LEGEND

_VACUOUS_BELOW = 40
"""Runs that are too few for every fault to strike."""


def main(arguments: list[str] | None = None) -> int:
    """Run what is asked for; the exit code says what kind of thing went wrong (simulations/outcome.py)."""
    asked = _parser().parse_args(arguments)
    if asked.ledger:
        ledger.PAGE.write_text(ledger.render())
        print(f"wrote {ledger.PAGE}")
        return 0
    if asked.list:
        return _list()
    if asked.search:
        return _search([asked.plant] if asked.plant else all_plants(), asked.seeds or SEEDS_MAX)
    if asked.crash_points:
        return _crash_points(asked)
    if asked.seeds is not None or asked.minutes is not None:
        return _campaign(asked)
    if asked.plant and asked.seed is None and asked.options is None and not asked.scenario:
        return _search([asked.plant], SEEDS_MAX)
    return _single(asked)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m simulations", description=__doc__)
    add = parser.add_argument
    add("--seed", type=int, help="run this seed; print its trace and its digest")
    add("--options", metavar="JSON", help="run with these options instead of what a seed draws")
    add("--seeds", type=int, help="run so many seeds, on all cores")
    add("--minutes", type=float, help="run seeds for so long, on all cores")
    add("--from", dest="start", type=int, default=1, help="the first of them")
    add("--profile", choices=PROFILES, default="swarm")
    add("--scenario", choices=sorted(SCENARIOS), default="")
    add("--plant", choices=sorted(PLANTS), default="", help="put this bug into the program")
    add("--without", choices=[*CHECKERS, REPLAY], action="append", default=[], help="leave a checker out")
    add("--minimise", action="store_true", help="make a case that fails small")
    add("--search", action="store_true", help="find seeds that show the planted bugs; write planted.txt")
    add("--crash-points", action="store_true", help="crash the core scenarios at every await")
    add("--every", type=int, default=1, metavar="N", help="crash at each Nth await only")
    add("--pairs", type=int, default=0, metavar="N", help="and N pairs of the central scenarios")
    add("--keep-going", action="store_true", help="do not stop at the first run that fails")
    add("--record", metavar="WHAT", default="", help="add the campaign to the ledger, under this name")
    add("--ledger", action="store_true", help="write docs/reliability.md")
    add("--list", action="store_true", help="list scenarios, planted bugs and checkers")
    add("--quiet", action="store_true", help="no trace")
    return parser


def _list() -> int:
    for name, scenario in SCENARIOS.items():
        print(f"scenario {name:20} {scenario.text}")
    for name, function in sorted(PLANTS.items()):
        print(f"plant    {name:40} {(function.__doc__ or '').strip()}")
    for name, check in CHECKERS.items():
        print(f"checker  {name:20} {(sys.modules[check.__module__].__doc__ or '').splitlines()[0]}")
    return 0


def _single(asked: argparse.Namespace) -> int:
    without = tuple(asked.without)
    if asked.options is not None:
        options = Options.parse(asked.options)
        case = Case(options=options, plant=asked.plant, scenario=asked.scenario, without=without)
    else:
        seed = asked.seed if asked.seed is not None else asked.start
        case = Case.draw(seed, asked.profile, plant=asked.plant, scenario=asked.scenario, without=without)
    if asked.minimise:
        print(f"making this small: {case.command}")
        case = minimise(case, lambda smaller, what: print(f"  {what:30} {smaller.options.text()}"))
    if not asked.quiet:
        print(LEGEND)
    outcome = case.run(verbose=not asked.quiet)
    return _report(case, outcome)


def _report(case: Case, outcome: Outcome) -> int:
    print(
        f"seed {outcome.seed}: {outcome.virtual_seconds:.1f} virtual seconds, {outcome.steps} steps, "
        f"{outcome.acknowledged} acknowledged, {outcome.delivered} delivered, {len(outcome.faults)} "
        "violations"
    )
    for fault in outcome.faults[:20]:
        print(f"  {fault}")
    print(f"digest: {outcome.digest}")
    print(case.command)
    return int(outcome.code)


def _campaign(asked: argparse.Namespace) -> int:
    tally = campaign(
        asked.profile,
        start=asked.start,
        seeds=asked.seeds,
        minutes=asked.minutes,
        plant=asked.plant,
        scenario=asked.scenario,
        without=tuple(asked.without),
        keep_going=asked.keep_going,
    )
    code = _summary(tally, asked.profile)
    if code is Exit.GOOD and tally.seeds >= _VACUOUS_BELOW and not asked.scenario and not asked.plant:
        never = missing(tally.marks)
        if never:
            print(f"never happened: {', '.join(never)}")
            code = Exit.VACUOUS
    if asked.record:
        ledger.record(tally, asked.profile, asked.record)
    if tally.failed:
        return _report(*tally.failed[0])
    print(f"python -m simulations --profile {asked.profile} --from {asked.start} --seeds {tally.seeds}")
    return int(code)


def _summary(tally: Tally, profile: str) -> Exit:
    for name, number in sorted(tally.marks.items()):
        print(f"  {name:34} {number}")
    for case, outcome in tally.failed:
        print(f"seed {outcome.seed}: {outcome.faults[0]}")
        print(f"  {case.command}")
    print(
        f"{tally.seeds} runs ({profile}), {tally.virtual_seconds / 60:.1f} virtual minutes, "
        f"{tally.steps} steps, {tally.acknowledged} items acknowledged, {tally.delivered} delivered, "
        f"{tally.crashes} node crashes, {tally.unknown} unknown commits, {len(tally.failed)} runs with "
        "violations"
    )
    return tally.code


def _search(names: list[str], seeds: int) -> int:
    findings, survivors = find_plants(
        names,
        seeds,
        lambda found: print(
            f"{found.plant:40} {found.promise:4} after {found.seeds:3} runs: {found.case.command}", flush=True
        ),
    )
    others = [found for found in read_findings() if found.plant not in names]
    write_findings(others + findings)
    for name in survivors:
        print(f"{name} survived {seeds} seeds")
    print(f"python -m simulations --search --seeds {seeds}")
    return int(Exit.CORRECTNESS if survivors else Exit.GOOD)


def _crash_points(asked: argparse.Namespace) -> int:
    names = [asked.scenario] if asked.scenario else CORE_SCENARIOS
    visited = visit(
        names,
        every=asked.every,
        pairs=asked.pairs,
        keep_going=asked.keep_going,
        on_scenario=lambda name, steps, runs: print(f"{name}: {steps} steps, {runs} runs", flush=True),
    )
    tally = visited.tally
    _summary(tally, "crash points")
    if asked.record:
        ledger.record(tally, "crash points", asked.record)
    if tally.failed:
        return _report(*tally.failed[0])
    print(f"python -m simulations --crash-points --every {asked.every} --pairs {asked.pairs}")
    return int(tally.code)


if __name__ == "__main__":
    sys.exit(main())
