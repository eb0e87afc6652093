"""``python -m simulations --seed N | --minutes M``: see simulations/README.md."""

import argparse
import sys
import time
from collections import Counter

from simulations.options import Options
from simulations.run import Outcome, run_seed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m simulations", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this seed and print its trace and digest")
    parser.add_argument("--minutes", type=float, help="run seeds, from --from on, for so long")
    parser.add_argument("--seeds", type=int, help="run so many seeds, from --from on")
    parser.add_argument("--from", dest="start", type=int, default=1)
    parser.add_argument("--profile", choices=("swarm", "dense"), default="swarm")
    parser.add_argument("--quiet", action="store_true", help="no trace lines")
    options = parser.parse_args()
    if options.seed is not None:
        outcome = run_seed(Options.draw(options.seed, options.profile), verbose=not options.quiet)
        return _report(outcome, options.profile)
    return _run_many(options)


def _run_many(options: argparse.Namespace) -> int:
    end = time.monotonic() + (options.minutes or 1e9) * 60
    marks: Counter[str] = Counter()
    virtual = 0.0
    acknowledged = 0
    seed = options.start
    while time.monotonic() < end and (options.seeds is None or seed < options.start + options.seeds):
        outcome = run_seed(Options.draw(seed, options.profile))
        if outcome.code:
            return _report(outcome, options.profile)
        marks.update(outcome.marks)
        virtual += outcome.virtual_seconds
        acknowledged += outcome.acknowledged
        seed += 1
    print(
        f"{seed - options.start} seeds, {virtual / 60:.1f} virtual minutes, "
        f"{acknowledged} items acknowledged, 0 violations"
    )
    for name, count in sorted(marks.items()):
        print(f"  {name:28} {count}")
    return 0


def _report(outcome: Outcome, profile: str) -> int:
    print(
        f"seed {outcome.seed}: {outcome.virtual_seconds:.1f} virtual seconds, {outcome.steps} steps, "
        f"{outcome.acknowledged} acknowledged, {outcome.delivered} delivered"
    )
    for fault in outcome.faults[:20]:
        print(f"  {fault}")
    print(f"digest: {outcome.digest}")
    if outcome.code:
        print(f"python -m simulations --profile {profile} --seed {outcome.seed}")
    return outcome.code


if __name__ == "__main__":
    sys.exit(main())
