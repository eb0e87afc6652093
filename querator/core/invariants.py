"""Checks that stay on in production: a failed one halts the partition, with evidence, not the process."""

from typing import NoReturn


class InvariantViolation(Exception):
    """Something that can't happen did: a bug, or a log that was tampered with."""


def violated(text: str) -> NoReturn:
    """Say that something happened that can't; where a call of ``check`` would cost too much.

    Raises:
        InvariantViolation: always.
    """
    raise InvariantViolation(text)


def check(condition: object, text: str) -> None:
    """Raise InvariantViolation unless ``condition`` holds."""
    if not condition:
        raise InvariantViolation(text)
