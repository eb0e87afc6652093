"""Make a failing case small: less of faults, clients, operations and time while the promise stays broken."""

from collections.abc import Callable, Iterator
from typing import Any, Final

import attrs

from simulations.case import Case
from simulations.options import Options

_FIXED: Final = ("seed", "heal_restarts", "liveness_seconds", "crash_steps")
_KEPT: Final = {"producers": 1, "queues": 1, "partitions": 1, "batch_max": 1}
"""Settings that make no sense below these."""


def minimise(case: Case, on_step: Callable[[Case, str], None] | None = None) -> Case:
    """The smallest case found that breaks the same promise. Hundreds of runs."""
    promise = case.run().promise
    if not promise:
        return case
    smaller = True
    while smaller:
        smaller = False
        for options, what in _smaller(case.options):
            candidate = case.evolve(options)
            if candidate.run().promise == promise:
                case, smaller = candidate, True
                if on_step is not None:
                    on_step(case, what)
                break
    return case


def _smaller(options: Options) -> Iterator[tuple[Options, str]]:
    """Options that are less than these, the boldest steps first."""
    plain = Options(seed=options.seed)
    for field in attrs.fields(Options):
        name, value = field.name, getattr(options, field.name)
        if name in _FIXED or not isinstance(value, bool | float | int) or name in _KEPT:
            continue
        nothing = (
            getattr(plain, name) if name in ("payload_memory", "reservation_timeout") else type(value)(0)
        )
        if name in ("safety_seconds", "produce_rate", "produce_max") or value == nothing:
            continue
        yield _with(options, name, nothing), f"without {name}"
    for name, least in _KEPT.items():
        if getattr(options, name) > least:
            yield _with(options, name, least), f"{name} {least}"
    for name in ("producers", "consumers", "askers", "hostiles"):
        if getattr(options, name) > 1:
            yield _with(options, name, 1), f"one of {name}"
    for step in range(len(options.crash_steps)):
        kept = options.crash_steps[:step] + options.crash_steps[step + 1 :]
        yield _with(options, "crash_steps", kept), "one crash less"
    if options.safety_seconds > 0.5:
        for factor in (0.5, 0.8):
            shorter = round(options.safety_seconds * factor, 2)
            yield _with(options, "safety_seconds", shorter), f"{shorter} s of faults"
    for most in (1, 2, 4, 8, 16, 32):
        if not options.produce_max or most < options.produce_max:
            yield _with(options, "produce_max", most), f"{most} produce calls"


def _with(options: Options, name: str, value: Any) -> Options:
    return attrs.evolve(options, **{name: value})
