"""``python -m benchmarks lifecycle``: what Querator does, in figures."""

import argparse
import json
import sys
from typing import Any

from benchmarks.lifecycle import ROWS, measure, median_round


def lifecycle(options: argparse.Namespace) -> int:
    rows = [row for row in ROWS if not options.row or any(part in row.name for part in options.row)]
    serve = ("--log", options.log) if options.log else ()
    summaries: list[dict[str, Any]] = []
    if not options.json:
        print(f"{'row':34} {'items/s':>10} {'min..max':>20} {'server':>9} {'clients':>9}  latency p50/p99")
    for row in rows:
        rounds = [measure(row, options.seconds, *serve) for _ in range(options.rounds)]
        summary = median_round(row, rounds)
        summaries.append(summary)
        if not options.json:
            print(_line(summary), flush=True)
    if options.json:
        print(json.dumps(summaries, indent=2))
    return 0


def _line(summary: dict[str, Any]) -> str:
    spread = f"{summary['rate_min']:,.0f}..{summary['rate_max']:,.0f}"
    line = (
        f"{summary['row']:34} {summary['rate']:>10,.0f} {spread:>20} "
        f"{summary['server_us']:>6.1f} µs {summary['client_us']:>6.1f} µs"
    )
    for name in ("ack", "delivered"):
        if name in summary:
            line += f"  {name} {summary[name][0]:.2f}/{summary[name][1]:.2f} ms"
    return line


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    cycles = commands.add_parser("lifecycle", help="produce, push, complete: items a second and latencies")
    cycles.add_argument("--log", default="", help="as for `querator serve`: nothing (SQLite), memory, or postgres://…")
    cycles.add_argument("--seconds", type=float, default=3.0)
    cycles.add_argument("--rounds", type=int, default=3)
    cycles.add_argument("--row", action="append", help="only rows whose name has this in it; may be repeated")
    cycles.add_argument("--json", action="store_true")
    cycles.set_defaults(run=lifecycle)
    options = parser.parse_args()
    code: int = options.run(options)
    return code


if __name__ == "__main__":
    sys.exit(main())
