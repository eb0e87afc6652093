"""Moments as people name them on the command line: a time, a duration before now, a position of a log."""

from datetime import UTC, datetime
from typing import Final

from querator.cli.exits import UsageError
from querator.client.durations import parse_duration, parse_instant
from querator.core.ids import Instant, Position
from querator.env.real import real_env
from querator.replay.history import Moment

_EXAMPLES: Final = "a moment (2026-11-24T08:00, UTC unless it says otherwise) nor a duration before now (24h)"


def read_moment(text: str, option: str) -> Instant:
    """A moment: ISO 8601 (UTC unless it says otherwise), or a duration before now.

    Raises:
        UsageError: it is neither; names the option.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        pass
    else:
        return parse_instant(moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC))
    try:
        ago = parse_duration(text)
    except ValueError:
        raise UsageError(f"{option}: '{text}' is neither {_EXAMPLES}") from None
    return Instant(max(0, real_env().clock.now() - ago))


def read_place_in_log(text: str, option: str) -> Moment:
    """A position, as 1234, or what ``read_moment`` takes.

    Raises:
        UsageError: it is none of them; names the option.
    """
    if text.isdecimal():
        return Moment(position=Position(int(text)))
    try:
        return Moment(at=read_moment(text, option))
    except UsageError as error:
        raise UsageError(f"{error}, nor a position of the log (1234)") from None
