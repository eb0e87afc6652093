"""Checks that stay on in production: a failed one halts the partition, with evidence, not the process."""


class InvariantViolation(Exception):
    """Something that can't happen did: a bug, or a log that was tampered with."""


def check(condition: object, text: str) -> None:
    """Raise InvariantViolation unless ``condition`` holds."""
    if not condition:
        raise InvariantViolation(text)
