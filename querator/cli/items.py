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
    rows = []
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
                        preview(found.get("payload")),
                    )
                )
        if not rows and not target.json:
            info = await q.call("queues.info", {"name": queue}, is_repeatable=True)
            taker = info["dead_queue"]
            note(f"nothing is dead in {queue}" + (f": what dies there goes on to {taker}" if taker else ""))
    if target.json or not rows:
        return
    print_table(("ITEM", "PRODUCED", "ATTEMPTS", "REASON", "PAYLOAD"), rows, right=("ATTEMPTS",))


@dead_app.command
async def redrive(
    queue: str,
    /,
    *items: Annotated[str, Parameter(help="Items, PARTITION.NUMBER; none: all of the queue.")],
    target: Target | None = None,
    reason: Annotated[str | None, Parameter(help="Only those that died for this reason.")] = None,
    limit: Annotated[int | None, Parameter(help="So many at most.")] = None,
) -> None:
    """Bring dead items back to the tail of the queue, with no attempts counted."""
    target = target or Target()
    params: dict[str, Any] = {"name": queue}
    if reason is not None:
        params["reason"] = reason
    if limit is not None:
        params["limit"] = limit
    by_partition: dict[int, list[int]] = {}
    for text in items:
        partition, number = read_item(text)
        by_partition.setdefault(partition, []).append(number)
    total = 0
    async with target.connect("dead redrive") as q:
        if not by_partition:
            total = (await q.call("dead.redrive", params))["redriven"]
        for partition, numbers in sorted(by_partition.items()):
            chosen = {**params, "partition": partition, "items": numbers}
            total += (await q.call("dead.redrive", chosen))["redriven"]
    if target.json:
        print_json({"redriven": total})
    else:
        note(f"redrove {total} items of {queue}")


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
