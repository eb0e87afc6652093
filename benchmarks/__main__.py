"""``python -m benchmarks lifecycle``: what Querator does, in figures."""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks import analytics, held, http, partitions, postgres, replaying
from benchmarks.lifecycle import ROWS, measure, median_round


def lifecycle(options: argparse.Namespace) -> int:
    rows = [row for row in ROWS if not options.row or any(part in row.name for part in options.row)]
    summaries: list[dict[str, Any]] = []
    if not options.json:
        print(f"{'row':34} {'items/s':>10} {'min..max':>20} {'server':>9} {'clients':>9}  latency p50/p99")
    with postgres.serving_on(options.log) as serve:
        for row in rows:
            rounds = [measure(row, options.seconds, *serve()) for _ in range(options.rounds)]
            summary = median_round(row, rounds)
            summaries.append(summary)
            if not options.json:
                print(_line(summary), flush=True)
    if options.json:
        print(json.dumps(summaries, indent=2))
    return _check_ratios(summaries) if options.check_ratios else 0


RATIO_BATCH_MIN = 5.0
"""Batch 100 to batch 1, of one run: absolute rates say more of the machine than of the code."""


def _check_ratios(summaries: Sequence[dict[str, Any]]) -> int:
    rates = {summary["row"]: summary["rate"] for summary in summaries}
    single, batched = rates.get("batch 1, client coalesces, 8+8"), rates.get("batch 100, 8+8")
    if single is None or batched is None:
        print("the rows of the ratios were not measured", file=sys.stderr)
        return 2
    ratio = batched / single
    verdict = "holds" if ratio >= RATIO_BATCH_MIN else "FAILS"
    print(f"batch 100 / batch 1: {ratio:.1f}, at least {RATIO_BATCH_MIN}: {verdict}", file=sys.stderr)
    return 0 if ratio >= RATIO_BATCH_MIN else 1


def footprint(options: argparse.Namespace) -> int:
    figures = held.footprint(options.items, options.payload_memory)
    growth = figures["growth_bytes_an_item"]
    targets = {"resident under 1.2 GiB": figures["resident_mib"] < 1.2 * 1024}
    if figures["is_past_budget"]:
        targets["growth under 60 bytes an item"] = growth < 60
    return _report(options, figures, targets)


def restart(options: argparse.Namespace) -> int:
    figures = held.restart(options.items)
    targets = {
        f"{what} {how} in under 10 s": figures[how][what] < 10
        for how in ("after_stopped", "after_killed", "after_killed_without_snapshot")
        for what in ("healthy", "first_push")
    }
    return _report(options, figures, targets)


def idle(options: argparse.Namespace) -> int:
    figures = held.idle(options.sessions, options.each, options.seconds)
    targets = {
        "under 5 % of a core": figures["cpu_percent"] < 5,
        "no log rows": not figures["log_records"],
    }
    return _report(options, figures, targets)


def pause(options: argparse.Namespace) -> int:
    figures = held.pause(options.items, options.seconds)
    return _report(options, figures, {"under 50 ms": figures["longest_ms"] < 50})


def many(options: argparse.Namespace) -> int:
    queues = options.queues or options.partitions
    figures = partitions.measure(options.log, options.partitions, queues, options.rate, options.seconds)
    return _report(options, figures, partitions.targets(figures))


def replay(options: argparse.Namespace) -> int:
    figures, targets = replaying.figures(options)
    return _report(options, figures, targets)


def _report(options: argparse.Namespace, figures: dict[str, Any], targets: dict[str, bool]) -> int:
    """Print figures and verdicts; 1 where a target is missed."""
    if options.json:
        print(json.dumps({**figures, "targets": targets}, indent=2))
    else:
        _print(figures, "")
        for target, is_met in targets.items():
            print(f"{'holds' if is_met else 'FAILS':>8}  {target}")
    return 0 if all(targets.values()) else 1


def _print(figures: dict[str, Any], indent: str) -> None:
    for name, value in figures.items():
        label = indent + name.replace("_", " ")
        if isinstance(value, dict):
            print(label)
            _print(value, indent + "  ")
        else:
            print(f"{label:40} {value:,.2f}" if isinstance(value, float) else f"{label:40} {value:,}")


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
    postgres.add_option(cycles)
    cycles.add_argument("--seconds", type=float, default=3.0)
    cycles.add_argument("--rounds", type=int, default=3)
    cycles.add_argument("--row", action="append", help="only rows whose name has this in it; may be repeated")
    cycles.add_argument(
        "--check-ratios", action="store_true", help="fail when batches are not worth their while"
    )
    cycles.set_defaults(run=lifecycle)
    memory = commands.add_parser("footprint", help="resident memory of a server with many waiting items")
    memory.add_argument("--items", type=int, default=1_000_000)
    memory.add_argument(
        "--payload-memory", type=int, default=32 << 20, help="bytes of payloads kept in memory"
    )
    memory.set_defaults(run=footprint)
    again = commands.add_parser("restart", help="seconds until a server with many waiting items serves again")
    again.add_argument("--items", type=int, default=1_000_000)
    again.set_defaults(run=restart)
    waiting = commands.add_parser("idle", help="what subscriptions cost to which nothing comes")
    waiting.add_argument("--sessions", type=int, default=1_000)
    waiting.add_argument("--each", type=int, default=10, help="subscriptions of a session")
    waiting.add_argument("--seconds", type=float, default=60.0)
    waiting.set_defaults(run=idle)
    longest = commands.add_parser("pause", help="the longest pause of the event loop with many items held")
    longest.add_argument("--items", type=int, default=1_000_000)
    longest.add_argument("--seconds", type=float, default=10.0)
    longest.set_defaults(run=pause)
    spread = commands.add_parser("partitions", help="many partitions with little to do, and one in trouble")
    postgres.add_option(spread)
    spread.add_argument("--partitions", type=int, default=1_000)
    spread.add_argument("--queues", type=int, default=0, help="that share the partitions; 0: one each")
    spread.add_argument("--rate", type=float, default=1.0, help="items a second and partition")
    spread.add_argument("--seconds", type=float, default=10.0)
    spread.set_defaults(run=many)
    questions = commands.add_parser("analytics", help="export of a log, its size, and questions over it")
    analytics.add_options(questions)
    questions.set_defaults(run=analytics.run)
    calls = commands.add_parser("http", help="the HTTP door: requests and items a second")
    http.add_options(calls)
    calls.set_defaults(run=http.run)
    again = commands.add_parser("replay", help="a recording replayed bit for bit, and a what-if over it")
    replaying.add_options(again)
    again.set_defaults(run=replay)
    for command in commands.choices.values():
        command.add_argument("--json", action="store_true")
    options = parser.parse_args()
    code: int = options.run(options)
    return code


if __name__ == "__main__":
    sys.exit(main())
