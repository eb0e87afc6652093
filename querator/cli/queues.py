"""``querator queues ...``."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import attrs
from cyclopts import App, Parameter

from querator.cli.exits import UsageError
from querator.cli.options import Target, given, read_duration
from querator.cli.output import (
    format_duration,
    format_instant,
    note,
    print_fields,
    print_json,
    print_table,
)
from querator.client import Rejected

app = App(name="queues", help="Create, look at and change queues.")

_DURATIONS: Final = (
    "reservation_timeout",
    "max_runtime",
    "expire_timeout",
    "dead_retention",
    "session_grace",
    "dedupe_window",
)
_INSTANTS: Final = ("created_at", "updated_at")


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class Settings:
    """What a queue is created with and what can be changed; what is not given is left as it is."""

    partitions: Annotated[
        int | None, Parameter(help="How many partitions; each has an order of its own.")
    ] = None
    reservation_timeout: Annotated[str | None, Parameter(help="How long a reservation lasts, as 60s.")] = None
    max_runtime: Annotated[
        str | None,
        Parameter(help="How long a reservation that its session keeps alive may last at most, as 1h."),
    ] = None
    expire_timeout: Annotated[
        str | None, Parameter(help="How long an item may wait before it is dead (expired); 0: for ever.")
    ] = None
    attempts_max: Annotated[
        int | None,
        Parameter(
            name=("--attempts-max", "--max-attempts"), help="Attempts before an item is dead; 0: no limit."
        ),
    ] = None
    backoff_base: Annotated[str | None, Parameter(help="Delay after the first failed attempt; 0: none.")] = (
        None
    )
    backoff_factor: Annotated[float | None, Parameter(help="By how much each further delay is longer.")] = (
        None
    )
    backoff_limit: Annotated[str | None, Parameter(help="The longest delay.")] = None
    backoff_jitter: Annotated[
        float | None, Parameter(help="The share of a delay that is random, 0 to 1.")
    ] = None
    dead_queue: Annotated[str | None, Parameter(help="The queue that takes dead items; '': they stay.")] = (
        None
    )
    dead_retention: Annotated[str | None, Parameter(help="How long dead items are kept, as 14d.")] = None
    session_grace: Annotated[
        str | None, Parameter(help="How long a session that lost its connection keeps its reservations.")
    ] = None
    dedupe_window: Annotated[str | None, Parameter(help="How long dedupe keys are remembered, as 24h.")] = (
        None
    )
    export_payloads: Annotated[
        bool | None, Parameter(help="Whether exports for analytics have the payloads as well.")
    ] = None
    reference: Annotated[str | None, Parameter(help="A note of your own.")] = None

    def params(self) -> dict[str, Any]:
        """What was given, as the calls take it: durations in microseconds, the backoff in one."""
        params = given(**attrs.asdict(self, filter=lambda field, _: not field.name.startswith("backoff_")))
        for field in _DURATIONS:
            if field in params:
                params[field] = read_duration(params[field], f"--{field.replace('_', '-')}")
        return params | given(backoff=self._backoff())

    def _backoff(self) -> dict[str, Any] | None:
        base, limit = self.backoff_base, self.backoff_limit
        parts = given(
            base=None if base is None else read_duration(base, "--backoff-base"),
            factor=self.backoff_factor,
            limit=None if limit is None else read_duration(limit, "--backoff-limit"),
            jitter=self.backoff_jitter,
        )
        if parts and "base" not in parts:
            raise UsageError("--backoff-factor, --backoff-limit and --backoff-jitter go with --backoff-base")
        return parts or None


@app.command
async def create(
    name: str,
    *,
    target: Target | None = None,
    settings: Settings | None = None,
    ordering: Annotated[
        Literal["fifo", "key"] | None,
        Parameter(help="fifo: by place; key: at most one reservation per key at a time."),
    ] = None,
    namespace: Annotated[str | None, Parameter(help="The namespace that the queue belongs to.")] = None,
    exist_ok: Annotated[
        bool, Parameter(negative="", help="It is fine when the queue exists; it is left as it is.")
    ] = False,
) -> None:
    """Create a queue."""
    target = target or Target()
    params = {
        "name": name,
        **given(ordering=ordering, namespace=namespace),
        **(settings or Settings()).params(),
    }
    done = f"created queue {name}"
    async with target.connect("queues create") as q:
        try:
            queue = await q.call("queues.create", params)
        except Rejected as error:
            if not (exist_ok and error.code == "queue_exists"):
                raise
            queue = await q.call("queues.info", {"name": name}, is_repeatable=True)
            done = f"queue {name} is there already"
    _print_queue(queue, target, done)


@app.command
async def update(name: str, *, target: Target | None = None, settings: Settings | None = None) -> None:
    """Change a queue's settings; what is not given stays. Applies to what happens from now on."""
    target = target or Target()
    params = (settings or Settings()).params()
    if not params:
        raise UsageError("nothing to change: give at least one setting, such as --attempts-max 5")
    async with target.connect("queues update") as q:
        queue = await q.call("queues.update", {"name": name, **params})
    _print_queue(queue, target, f"updated queue {name}")


@app.command(name="list")
async def list_(*, target: Target | None = None) -> None:
    """All queues, by name."""
    target = target or Target()
    queues: list[dict[str, Any]] = []
    async with target.connect("queues list") as q:
        pivot: str | None = ""
        while pivot is not None:
            page = await q.call("queues.list", {"pivot": pivot}, is_repeatable=True)
            queues += page["queues"]
            pivot = page["next"]
    if target.json:
        for queue in queues:
            print_json(queue)
        return
    if not queues:
        note("there are no queues; create one with `querator queues create NAME`")
        return
    print_table(
        ("QUEUE", "PARTITIONS", "ORDER", "RESERVATION", "ATTEMPTS", "DEAD QUEUE", "PAUSED"),
        [
            (
                queue["name"],
                len(queue["partitions"]),
                queue["ordering"],
                format_duration(queue["reservation_timeout"]),
                queue["attempts_max"] or "∞",
                queue["dead_queue"] or "-",
                "yes" if queue["paused"] else "no",
            )
            for queue in queues
        ],
        right=("PARTITIONS", "ATTEMPTS"),
    )


@app.command
async def info(name: str, *, target: Target | None = None) -> None:
    """A queue's settings."""
    target = target or Target()
    async with target.connect("queues info") as q:
        queue = await q.call("queues.info", {"name": name}, is_repeatable=True)
    _print_queue(queue, target, "")


@app.command
async def delete(
    name: str,
    *,
    target: Target | None = None,
    yes: Annotated[bool, Parameter(negative="", help="Yes, with everything in it.")] = False,
) -> None:
    """Delete a queue and what is in it. Its history stays in the log."""
    target = target or Target()
    if not yes:
        raise UsageError(f"this removes queue {name!r} and all its items: say --yes")
    async with target.connect("queues delete") as q:
        await q.call("queues.delete", {"name": name})
    _say_done(target, {"deleted": name}, f"deleted queue {name}")


@app.command
async def pause(name: str, *, target: Target | None = None) -> None:
    """Reserve nothing from a queue until it is resumed; producing goes on."""
    await _set(name, target or Target(), "queues.pause", "paused")


@app.command
async def resume(name: str, *, target: Target | None = None) -> None:
    """Reserve from a paused queue again."""
    await _set(name, target or Target(), "queues.resume", "resumed")


@app.command
async def clear(
    name: str,
    *,
    target: Target | None = None,
    ready: Annotated[bool, Parameter(negative="", help="What waits in line.")] = False,
    scheduled: Annotated[bool, Parameter(negative="", help="What waits for its time.")] = False,
    reserved: Annotated[
        bool, Parameter(negative="", help="What is reserved; its holders learn it when they settle.")
    ] = False,
    dead: Annotated[bool, Parameter(negative="", help="What is dead.")] = False,
    yes: Annotated[bool, Parameter(negative="", help="Yes, remove them.")] = False,
) -> None:
    """Remove all items in the given states."""
    target = target or Target()
    states = {"ready": ready, "scheduled": scheduled, "reserved": reserved, "dead": dead}
    chosen = [state for state, is_chosen in states.items() if is_chosen]
    if not chosen:
        raise UsageError("say what to clear: --ready, --scheduled, --reserved, --dead")
    if not yes:
        raise UsageError(f"this removes all {' and '.join(chosen)} items of {name!r}: say --yes")
    async with target.connect("queues clear") as q:
        result = await q.call("queues.clear", {"name": name, **states})
    _say_done(target, result, f"cleared {result['cleared']} items of {name}")


async def _set(name: str, target: Target, method: str, word: str) -> None:
    async with target.connect(method.replace(".", " ")) as q:
        queue = await q.call(method, {"name": name})
    _print_queue(queue, target, f"{word} queue {name}")


def _print_queue(queue: Mapping[str, Any], target: Target, done: str) -> None:
    """``done``: what a command did; "": it was to show the queue."""
    if target.json:
        print_json(queue)
    elif done:
        note(done)
    else:
        print_fields((name.replace("_", " "), _shown(name, value)) for name, value in queue.items())


def _shown(name: str, value: Any) -> str:
    if name in _DURATIONS:
        return format_duration(value)
    if name in _INSTANTS:
        return format_instant(value)
    if name == "backoff":
        if not value["base"]:
            return "none"
        return (
            f"{format_duration(value['base'])}, each {value['factor']:g} times longer, "
            f"at most {format_duration(value['limit'])}, {value['jitter']:.0%} of it random"
        )
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name == "places":
        return "; ".join(_place(place) for place in value)
    if isinstance(value, list):
        return ", ".join(str(part) for part in value)
    return "-" if value == "" else str(value)


def _place(place: Mapping[str, Any]) -> str:
    fault = f": {place['fault']}" if place["fault"] else ""
    return f"{place['partition']} in {place['store']}, {place['condition']}{fault}"


def _say_done(target: Target, result: object, text: str) -> None:
    if target.json:
        print_json(result)
    else:
        note(text)
