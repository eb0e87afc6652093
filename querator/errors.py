"""Operating errors: the world failed. What a client may do any day is a rejection (core/replies.py)."""

from typing import ClassVar


class QueratorError(Exception):
    """Something outside Querator's logic went wrong."""

    exit_code: ClassVar[int] = 1


class LogError(QueratorError):
    """The log store could not do what was asked."""


class LogUnavailable(LogError):
    """Nothing was written; trying again later may work."""


class AppendOutcomeUnknown(LogError):
    """Whether the append was committed is not known: send the same records again and look."""


class HistoryDropped(LogError):
    """That part of the history was dropped with its bucket."""


class StoreLocked(LogError):
    """Another process holds the store."""

    exit_code: ClassVar[int] = 73


class StoreCorrupt(LogError):
    """The store cannot be read."""

    exit_code: ClassVar[int] = 65


class StoreDamaged(StoreCorrupt):
    """What it keeps is ours, and is broken."""


class CorruptRecord(LogError):
    """A record cannot be decoded, fails its checksum or does not chain."""

    exit_code: ClassVar[int] = 65


class DataLossSuspected(LogError):
    """The log ends before a position that had been acknowledged."""

    exit_code: ClassVar[int] = 65


class ProtocolError(QueratorError):
    """The peer sent something that is not the protocol; ``path`` says where."""

    def __init__(self, detail: str, path: str = "$") -> None:
        super().__init__(f"{detail} - at `{path}`")
        self.detail = detail
        self.path = path


class ConfigError(QueratorError):
    """A setting is wrong; the text names it, where it came from, and the remedy."""

    exit_code: ClassVar[int] = 78
