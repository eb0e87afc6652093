"""What many commands take: where the server is, and how to print."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import attrs
from cyclopts import Group, Parameter

from querator import config
from querator.cli.exits import UsageError
from querator.cli.output import note
from querator.client import Client, connect
from querator.client.durations import parse_duration
from querator.core.ids import SECOND, Duration
from querator.env.real import client_tls
from querator.errors import ConfigError

CONNECT_TIMEOUT: Final = Duration(3 * SECOND)
"""A command that asks one thing says soon that nobody is there."""
RECONNECT_TIMEOUT: Final = Duration(60 * SECOND)

COMMON: Final = Group("Connection and output", sort_key=10)


@Parameter(name="*", group=COMMON)
@attrs.frozen(kw_only=True)
class Target:
    """The server to talk to, and how to print."""

    address: Annotated[
        str | None,
        Parameter(help="Where the server is, HOST:PORT or ws[s]://HOST:PORT. [env: QUERATOR_ADDRESS]"),
    ] = None
    api_key: Annotated[
        str | None,
        Parameter(help="The key that authenticates us. [env: QUERATOR_API_KEY, QUERATOR_API_KEY_FILE]"),
    ] = None
    ca: Annotated[
        Path | None,
        Parameter(
            help="PEM file: trust these authorities, not the system's; HOST:PORT is then wss://HOST:PORT. "
            "[env: QUERATOR_CA]"
        ),
    ] = None
    json: Annotated[bool, Parameter(negative="", help="Print JSON, one document a line, for programs.")] = (
        False
    )

    @asynccontextmanager
    async def connect(
        self, command: str, *, patience: Duration | None = None, quiet: bool = False
    ) -> AsyncIterator[Client]:
        """A client. ``patience``: go on without a connection for so long, saying so, unless ``quiet``."""
        flags = {
            "address": self.address,
            "api_key": self.api_key,
            "ca": None if self.ca is None else str(self.ca),
        }
        loaded = config.load(flags)
        if loaded.config.ca is not None:
            try:
                client_tls(loaded.config.ca)
            except OSError as error:
                raise ConfigError(f"ca: {loaded.config.ca} can't be used: {error}") from error
        async with connect(
            _callable_address(str(loaded.config.address)),
            client=f"querator {command}",
            token=str(loaded.config.api_key),
            ca=loaded.config.ca,
            connect_timeout=_seconds(CONNECT_TIMEOUT if patience is None else patience),
            reconnect_timeout=_seconds(CONNECT_TIMEOUT if patience is None else patience),
            notify=_say if patience is not None and not quiet else None,
        ) as q:
            yield q


Patience = Annotated[
    str,
    Parameter(help="How long to go on trying when the server is away (0: give up at once)."),
]


def read_duration(text: str, field: str) -> Duration:
    """A duration from the command line.

    Raises:
        UsageError: it is none; names the option.
    """
    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(f"{field}: {error}") from error


def given(**settings: Any) -> dict[str, Any]:
    """Those that were given."""
    return {name: value for name, value in settings.items() if value is not None}


def _seconds(duration: Duration) -> float:
    return duration / SECOND


def _callable_address(address: str) -> str:
    """A server may listen on all addresses; a client calls one of them."""
    if "," in address:
        return ",".join(_callable_address(part) for part in address.split(","))
    host, port = config.parse_address(address)
    if host in ("", "0.0.0.0", "::"):  # noqa: S104 - to call it, not to listen on it
        return f"localhost:{port}"
    return address


def _say(text: str) -> None:
    note(text)


__all__ = ["COMMON", "ConfigError", "Patience", "Target", "given", "read_duration"]
