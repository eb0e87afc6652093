"""Where a server is: ``HOST:PORT``, ``ws://HOST:PORT``, ``wss://HOST:PORT/path``."""

from typing import Final
from urllib.parse import urlsplit

import attrs

from querator.core.limits import CLIENT_ADDRESSES_MAX

PORT_DEFAULT: Final = 2319
PATH_DEFAULT: Final = "/v1/stream"
ADDRESS_DEFAULT: Final = f"localhost:{PORT_DEFAULT}"


@attrs.frozen
class Address:
    """A server's stream endpoint. ``host`` has no brackets around an IPv6 address."""

    host: str
    port: int
    path: str = PATH_DEFAULT
    secure: bool = False

    @property
    def authority(self) -> str:
        """``HOST:PORT`` as it stands in a URL or a Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{'wss' if self.secure else 'ws'}://{self.authority}{self.path}"


def parse_addresses(text: str, *, secure: bool = False) -> tuple[Address, ...]:
    """Read one or more addresses, with commas between them: of nodes, any of which may be the owner.

    Raises:
        ValueError: one is none, they are too many, or some are ``wss`` and some are not.
    """
    found = tuple(parse_address(part, secure=secure) for part in text.split(","))
    if len(found) > CLIENT_ADDRESSES_MAX:
        raise ValueError(f"{len(found)} addresses; at most {CLIENT_ADDRESSES_MAX}")
    if len({address.secure for address in found}) > 1:
        raise ValueError(f"{text!r}: some addresses are encrypted and some are not")
    return found


def parse_address(text: str, *, secure: bool = False) -> Address:
    """Read an address; scheme, port and path may be left out. ``secure``: what no scheme means.

    Raises:
        ValueError: it is none; the text says what one looks like.
    """
    stripped = text.strip()
    has_scheme = "://" in stripped
    full = stripped if has_scheme else f"{'wss' if secure else 'ws'}://{stripped}"
    try:
        parts = urlsplit(full)
        port = parts.port
        host = parts.hostname
    except ValueError:
        raise _bad(text) from None
    if parts.scheme not in ("ws", "wss", "http", "https") or not host:
        raise _bad(text)
    if parts.query or parts.fragment or parts.username or parts.password or any(c.isspace() for c in full):
        raise _bad(text)
    secure = parts.scheme in ("wss", "https")
    if port is None:
        port = 443 if secure and has_scheme else PORT_DEFAULT
    if port == 0:
        raise _bad(text)
    path = parts.path if parts.path not in ("", "/") else PATH_DEFAULT
    return Address(host, port, path, secure)


def _bad(text: str) -> ValueError:
    return ValueError(f"{text!r} is not an address: write HOST:PORT, ws://HOST:PORT or wss://HOST:PORT")
