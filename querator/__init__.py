"""Querator: an event-sourced reservation queue. Almost exactly once delivery."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from querator.client import connect

__version__ = "0.1.0"
__all__ = ["__version__", "connect"]


def __getattr__(name: str) -> Any:
    # Loaded when asked for: a server needs no client, and the core is importable without trio.
    if name == "connect":
        from querator.client import connect  # noqa: PLC0415

        return connect
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
