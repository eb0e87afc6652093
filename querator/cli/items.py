"""``querator item ...`` and ``querator dead ...``."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec
from cyclopts import App, Parameter

from querator.cli.exits import UsageError
from querator.cli.options import Target
from querator.cli.output import (
    console,
    format_duration,
    format_instant,
    note,
    preview,
    print_fields,
    print_json,
    print_table,
)
from querator.client import Client
from querator.core.segments import GONE, STATE_NAMES

item_app = App(name="item", help="One item, and its history.")
dead_app = App(name="dead", help="Items that will not be tried again, until they are redriven.")

HOMEWARD_INTERVAL: Final = 0.25
"""Seconds between two looks at whether there is room on the way home."""


@item_app.command
async def trace(
    item: Annotated[str, Parameter(help="PARTITION.NUMBER, as produce --json and consume --json print it.")],
    /,
    *,
    target: Target | None = None,
    follow: Annotated[
        bool, Parameter(negative="", help="Go on until the item is done with, or Ctrl-C.")
    ] = False,
) -> None:
    """Every event of one item, in words and times, from the log."""
    target = target or Target()
    partition, number = read_item(item)
    params = {"partition": partition, "item": number}
    async with target.connect("item trace") as q:
        if not follow:
            _print_trace(target, await q.call("item.trace", params, is_repeatable=True))
            return
        # Watched first: what happens while the log is read is not missed.
        async with q.watch_item(partition, number) as steps:
            history = await q.call("item.trace", params, is_repeatable=True)
            _print_trace(target, history)
            seen: Sequence[Mapping[str, Any]] = history["steps"]
            position, at = (seen[-1]["position"], seen[-1]["at"]) if seen else (0, 0)
            is_gone = bool(seen) and seen[-1]["details"]["state"] == _GONE
            while not is_gone:
                step = msgspec.to_builtins(await anext(steps))
                if step["position"] > position:
                    _print_step(target, step, at)
                    position, at = step["position"], step["at"]
                    is_gone = step["details"]["state"] == _GONE


_GONE: Final = STATE_NAMES[GONE]
_TRACE_COLUMNS: Final = ("TIME", "SINCE", "POSITION")


def _print_trace(target: Target, history: Mapping[str, Any]) -> None:
    if target.json:
        print_json(history)
        return
    rows = []
    previous = 0
    for step in history["steps"]:
        rows.append(_row(step, previous))
        previous = step["at"]
    title = f"ITEM {history['partition']}.{history['item']}"
    print_table((*_TRACE_COLUMNS, title), rows, right=_TRACE_COLUMNS[1:])


def _print_step(target: Target, step: Mapping[str, Any], previous: int) -> None:
    """One more, below the table."""
    if target.json:
        print_json({name: step[name] for name in ("position", "at", "what", "text", "details")})
        return
    console().print("  ".join(str(cell) for cell in _row(step, previous)), highlight=False)


def _row(step: Mapping[str, Any], previous: int) -> tuple[object, ...]:
    since = f"+{format_duration(step['at'] - previous)}" if previous else ""
    return format_instant(step["at"]), since, step["position"], step["text"] or step["what"]


@item_app.command
async def show(
    item: Annotated[str, Parameter(help="PARTITION.NUMBER.")], /, *, target: Target | None = None
) -> None:
    """One item as it stands."""
    target = target or Target()
    partition, number = read_item(item)
    params = {"partition": partition, "item": number}
    async with target.connect("item show") as q:
        found = await q.call("item.find", params, is_repeatable=True)
    if target.json:
        print_json(found)
        return
    print_fields(_item_fields(found))


@dead_app.command(name="list")
async def list_(
    queue: str,
    *,
    target: Target | None = None,
    limit: Annotated[int, Parameter(help="Items to show at most; 0: all.")] = 100,
) -> None:
    """The dead items of a queue: which, why, and the beginning of each."""
    target = target or Target()
    if limit < 0:
        raise UsageError("--limit: give a number of items, or 0 for all")
    rows: list[tuple[object, ...]] = []
    async with target.connect("dead list") as q:
        async for found in _dead_items(q, queue, limit):
            if target.json:
                print_json({"id": _id(found), **found})
            else:
                rows.append(
                    (
                        _id(found),
                        format_instant(found.get("produced_at", 0)),
                        found.get("attempts", 0),
                        found.get("reason", "") or "-",
                        _home(found),
                        preview(found.get("payload")),
                    )
                )
        if not rows and not target.json:
            info = await q.call("queues.info", {"name": queue}, is_repeatable=True)
            taker = info["dead_queue"]
            note(f"nothing is dead in {queue}" + (f": what dies there goes on to {taker}" if taker else ""))
    if target.json or not rows:
        return
    heads: tuple[str, ...] = ("ITEM", "PRODUCED", "ATTEMPTS", "REASON", "FROM", "PAYLOAD")
    if not any(row[4] for row in rows):
        heads, rows = heads[:4] + heads[5:], [row[:4] + row[5:] for row in rows]
    print_table(heads, rows, right=("ATTEMPTS",))


@dead_app.command
async def redrive(
    queue: str,
    /,
    *items: Annotated[str, Parameter(help="Items, PARTITION.NUMBER; none: all of the queue.")],
    target: Target | None = None,
    reason: Annotated[str | None, Parameter(help="Only those that died for this reason.")] = None,
    home: Annotated[
        bool,
        Parameter(
            negative="", help="Send what QUEUE took as a dead queue back to the queues that it came from."
        ),
    ] = False,
    from_: Annotated[
        str | None, Parameter(name="--from", help="With --home: only what came from this queue.")
    ] = None,
    limit: Annotated[int | None, Parameter(help="So many at most.")] = None,
) -> None:
    """Bring dead items back to the tail, with no attempts counted; or, from a dead queue, --home."""
    target = target or Target()
    if from_ is not None and not home:
        raise UsageError("--from: says what is to go home, so give --home as well")
    if reason is not None and home:
        raise UsageError("--reason: what goes home is not told apart by reason")
    given = {"reason": reason, "from_queue": from_, "limit": limit, "to": "home" if home else None}
    params: dict[str, Any] = {"name": queue}
    params |= {name: value for name, value in given.items() if value is not None}
    by_partition: dict[int, list[int]] = {}
    for text in items:
        partition, number = read_item(text)
        by_partition.setdefault(partition, []).append(number)
    async with target.connect("dead redrive") as q:
        done = {"redriven": 0}
        if home and not by_partition:
            done = await _send_home(q, params)
        elif not by_partition:
            done = await q.call("dead.redrive", params)
        for partition, numbers in sorted(by_partition.items()):
            chosen = {**params, "partition": partition, "items": numbers}
            done["redriven"] += (await q.call("dead.redrive", chosen))["redriven"]
        if target.json:
            print_json(done)
        elif home:
            _say_sent(queue, done)
        else:
            note(f"redrove {done['redriven']} items of {queue}")
            if not done["redriven"] and (hint := await _hint_of_homes(q, queue)):
                note(hint)


async def _send_home(q: Client, params: Mapping[str, Any]) -> dict[str, int]:
    """Until all that can go is on its way: so many may be at a time, so that the last wait for the first."""
    done, has_more = await _send_some_home(q, params, 0)
    if has_more:
        async with q.watch(params["name"], interval=HOMEWARD_INTERVAL) as reports:
            while has_more:
                note(f"{done['redriven']} are on their way")
                await anext(reports)
                done, has_more = await _send_some_home(q, params, done["redriven"])
    return done


async def _send_some_home(q: Client, params: Mapping[str, Any], before: int) -> tuple[dict[str, int], bool]:
    """(what was done, ``before`` included; whether there is more to do)."""
    left = {"limit": params["limit"] - before} if "limit" in params else {}
    answer = dict(await q.call("dead.redrive", {**params, **left}))
    has_more = answer.pop("more") and answer["redriven"] < left.get("limit", 1 << 62)
    return {**answer, "redriven": before + answer["redriven"]}, has_more


def _say_sent(queue: str, done: Mapping[str, int]) -> None:
    note(f"sent {done['redriven']} items of {queue} home")
    if done.get("reserved"):
        note(f"{done['reserved']} are reserved, and left to who holds them")
    if done.get("stranded"):
        note(f"{done['stranded']} stay: the queue that they came from was deleted")


async def _hint_of_homes(q: Client, queue: str) -> str:
    """What could be done where nothing is dead; "": nothing."""
    homes = (await q.call("dead.homes", {"name": queue}, is_repeatable=True))["homes"]
    count = sum(row["idle"] for row in homes if row["home_queue"])
    names = ", ".join(dict.fromkeys(row["home_queue"] for row in homes if row["home_queue"]))
    if not count:
        return ""
    return f"{count} items wait there that were dead in {names}: --home sends them back"


@dead_app.command
async def homes(queue: str, *, target: Target | None = None) -> None:
    """Where the items came from that a dead queue took, and how many could be sent back."""
    target = target or Target()
    async with target.connect("dead homes") as q:
        rows = (await q.call("dead.homes", {"name": queue}, is_repeatable=True))["homes"]
    if target.json:
        for row in rows:
            print_json(row)
        return
    if not rows:
        note(f"nothing in {queue} came from another queue")
        return
    cells = [(row["home_queue"] or "-", row["home"], row["idle"], row["reserved"]) for row in rows]
    heads = ("QUEUE", "PARTITION", "CAN GO HOME", "RESERVED")
    print_table(heads, cells, right=heads[1:])


def read_item(text: str) -> tuple[int, int]:
    """(partition, number) of an item's id; the queue's name may stand in front (``mail:3.17``).

    Raises:
        UsageError: it is none.
    """
    partition, dot, number = text.rpartition(":")[2].partition(".")
    if not dot or not partition.isdecimal() or not number.isdecimal() or not int(number):
        raise UsageError(f"item: {text!r} is not an item's id: write PARTITION.NUMBER, such as 1.17")
    return int(partition), int(number)


async def _dead_items(q: Client, queue: str, limit: int) -> AsyncIterator[Mapping[str, Any]]:
    """Page after page."""
    left = limit or None
    params: dict[str, Any] = {"name": queue}
    while left is None or left > 0:
        params["limit"] = min(1_000, left or 1_000)
        page = await q.call("dead.list", params, is_repeatable=True)
        for found in page["items"]:
            yield found
        if left is not None:
            left -= len(page["items"])
        if page["next"] is None:
            return
        params.update(page["next"])


def _home(found: Mapping[str, Any]) -> str:
    """Where it was dead before it came here; "": it was produced here."""
    if "home" not in found:
        return ""
    return found["home_queue"] or f"partition {found['home']}"


def _id(found: Mapping[str, Any]) -> str:
    return f"{found['partition']}.{found['item']}"


def _item_fields(found: Mapping[str, Any]) -> list[tuple[str, object]]:
    fields: list[tuple[str, object]] = [("item", _id(found))]
    for name, value in found.items():
        if name in ("partition", "item") or value in ("", {}):
            continue
        if name.endswith("_at") or name == "deadline":
            if value:
                fields.append((name.replace("_", " "), format_instant(value)))
        elif isinstance(value, bytes):
            fields.append((name, preview(value, 500)))
        elif isinstance(value, dict):
            fields += [(f"{name} {part}", entry) for part, entry in value.items() if entry is not None]
        else:
            fields.append((name.replace("_", " "), value))
    return fields
