"""How a queue treats its items: the part of a queue's settings that its partitions decide by.

A partition decides only by the policy in its own state; the catalog's change reaches it as a
``PolicyApplied`` event (DESIGN: decision 14).
"""

import enum

import attrs
import msgspec

from querator.core import limits
from querator.core.ids import DAY, HOUR, SECOND, Duration, PartitionId


class Ordering(enum.StrEnum):
    """Which promise of order a queue makes."""

    FIFO = "fifo"
    """First deliveries in order of place."""
    KEY = "key"
    """At most one reservation per key at a time; a failed head holds only its own key back."""


@attrs.frozen
class Backoff:
    """When a failed item is tried again: ``base * factor ** (attempt - 1)``, at most ``limit``.

    ``jitter`` is the share (0 to 1) of the delay that is spread: the delay is drawn from
    ``[delay * (1 - jitter), delay]`` by a hash of item and attempt, so that it needs no dice.
    """

    base: Duration = Duration(0)
    factor: float = 2.0
    limit: Duration = HOUR
    jitter: float = 0.2

    def delay(self, attempt: int, item: int) -> Duration:
        """The delay after failed attempt number ``attempt`` (from 1), in microseconds."""
        if not self.base:
            return Duration(0)
        exponent = min(attempt - 1, 64)
        full = int(min(self.base * self.factor**exponent, self.limit))
        share = ((item * 2654435761 + attempt * 40503) & 0xFFFF) / 0xFFFF
        return Duration(int(full * (1 - self.jitter * share)))


@attrs.frozen(kw_only=True)
class Policy:
    """The settings of a queue that its partitions decide by. Durations in microseconds."""

    version: int = 1
    reservation_timeout: Duration = Duration(60 * SECOND)
    max_runtime: Duration = HOUR
    expire_timeout: Duration = Duration(0)
    """0: items never expire."""
    attempts_max: int = 0
    """0: without limit."""
    backoff: Backoff = Backoff()
    ordering: Ordering = Ordering.FIFO
    dead_target: PartitionId | None = None
    """The partition that takes the dead items; ``None``: they stay here."""
    dead_retention: Duration = Duration(14 * DAY)
    """How long a dead item is kept here; 0: it is pruned at once."""
    session_grace: Duration = Duration(5 * SECOND)
    dedupe_window: Duration = DAY
    dedupe_keys_max: int = limits.DEDUPE_KEYS_MAX
    deleted: bool = False
    """The queue is gone: the partition refuses everything from here on."""


def encode_policy(policy: Policy) -> bytes:
    """The policy as JSON, for PolicyApplied."""
    return msgspec.json.encode(policy)


def decode_policy(document: bytes) -> Policy:
    """The policy of a PolicyApplied event.

    Raises:
        msgspec.ValidationError: the document is not a policy.
    """
    return msgspec.json.decode(document, type=Policy)
