"""The only way the code is observed: named events with fields, to whoever listens.

Names are ``area.thing.happened``, so that tests can wait for one and operators can search for one.
Nothing is formatted here, and with no listener an event costs a function call. Payloads and keys
are never fields.
"""

from collections.abc import Callable
from typing import TypeAlias

Listener: TypeAlias = Callable[[str, dict[str, object]], None]
"""Told (name, fields) at once, in the emitting task: it must not wait and must not raise."""

_listeners: list[Listener] = []


def emit(name: str, **fields: object) -> None:
    """Something worth knowing happened."""
    for listener in _listeners:
        listener(name, fields)


def listen(listener: Listener) -> Callable[[], None]:
    """Tell ``listener`` of every event from now on; call the result to stop that."""
    _listeners.append(listener)

    def stop() -> None:
        _listeners.remove(listener)

    return stop
