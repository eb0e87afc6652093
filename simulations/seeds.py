"""Cases that once failed (``seeds.txt``) and those that show a planted bug (``planted.txt``).

Both keep the options and not the seed alone: what a seed draws changes with every new knob.
"""

from pathlib import Path
from typing import Final

import attrs

from simulations.case import Case
from simulations.options import Options

_HERE: Final = Path(__file__).parent
SEEDS: Final = _HERE / "seeds.txt"
PLANTED: Final = _HERE / "planted.txt"


@attrs.frozen
class Lesson:
    """A case that once failed."""

    date: str
    case: Case
    promise: str
    text: str
    """What was wrong."""
    fix: str
    """The first line of the commit that mended it."""


@attrs.frozen
class Finding:
    """A case that shows a planted bug."""

    plant: str
    case: Case
    promise: str
    seeds: int
    """How many seeds were tried until then."""


def _lines(path: Path) -> list[list[str]]:
    text = path.read_text() if path.exists() else ""
    return [line.split(" | ") for line in text.splitlines() if line.strip() and not line.startswith("#")]


def read_lessons() -> list[Lesson]:
    """Oldest first. ``date | promise | scenario or - | options | what was wrong | the fix``."""
    return [
        Lesson(
            date, Case(options=Options.parse(options), scenario=_name(scenario)), promise, text, fix.strip()
        )
        for date, promise, scenario, options, text, fix in _lines(SEEDS)
    ]


def read_findings() -> list[Finding]:
    """``plant | promise | seeds tried | scenario or - | options``."""
    return [
        Finding(
            plant,
            Case(options=Options.parse(options), plant=plant, scenario=_name(scenario)),
            promise,
            int(seeds),
        )
        for plant, promise, seeds, scenario, options in _lines(PLANTED)
    ]


def write_findings(findings: list[Finding]) -> None:
    """Replace the file."""
    lines = ["# plant | promise that it breaks | seeds tried | scenario or - | options"]
    lines += [
        f"{found.plant} | {found.promise} | {found.seeds} | {found.case.scenario or '-'} | "
        f"{found.case.options.text()}"
        for found in sorted(findings, key=lambda found: found.plant)
    ]
    PLANTED.write_text("\n".join(lines) + "\n")


def _name(scenario: str) -> str:
    return "" if scenario == "-" else scenario
