"""The WebSocket handshake of ``/v1/stream``: what is asked, what is granted."""

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

import attrs

from querator.api.exchange import HttpResponse
from querator.protocol.codec import CODECS, Codec

STREAM_PATH: Final = "/v1/stream"
_ACCEPT_SALT: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
_VERSION: Final = "13"


@attrs.frozen
class Upgrade:
    """A granted handshake: how to speak, and the bytes that say so."""

    codec: Codec
    response: bytes
    authorization: str
    """Of the ``Authorization`` header, without ``Bearer``; "" if there is none."""


def asks_for_websocket(headers: Mapping[str, str]) -> bool:
    """Whether the request wants to become a WebSocket."""
    return "websocket" in _tokens(headers.get("upgrade", ""))


def negotiate(headers: Mapping[str, str], origins: Sequence[str]) -> Upgrade | HttpResponse:
    """Grant the handshake, or say why not.

    Browsers send an ``Origin``: it must be the host that was asked, or one of ``origins`` ("*": any);
    else any page a user visits could speak to a server on the user's own machine.
    """
    if "upgrade" not in _tokens(headers.get("connection", "")):
        return refusal(400, "a WebSocket handshake needs Connection: Upgrade")
    if headers.get("sec-websocket-version", "") != _VERSION:
        return refusal(426, "WebSocket version 13 is spoken here", [("Sec-WebSocket-Version", _VERSION)])
    key = headers.get("sec-websocket-key", "")
    if not _is_key(key):
        return refusal(400, "Sec-WebSocket-Key must be 16 bytes in base64")
    if not _is_allowed_origin(headers.get("origin"), headers.get("host", ""), origins):
        return refusal(403, "this Origin is not allowed")
    offered = _tokens(headers.get("sec-websocket-protocol", ""), lower=False)
    codec = next((CODECS[name] for name in CODECS if name in offered), None)
    if codec is None:
        return refusal(400, f"offer one of the subprotocols {', '.join(CODECS)}")
    accept = base64.b64encode(hashlib.sha1(key.encode() + _ACCEPT_SALT, usedforsecurity=False).digest())
    response = (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\nSec-WebSocket-Protocol: %b\r\n\r\n"
        % (accept, codec.subprotocol.encode())
    )
    return Upgrade(codec, response, bearer(headers.get("authorization", "")))


def bearer(authorization: str) -> str:
    """The key in an ``Authorization`` header; a header that is no bearer's is kept as it is."""
    scheme, _, key = authorization.partition(" ")
    return key.strip() if scheme.lower() == "bearer" else authorization


def refusal(status: int, detail: str, headers: Sequence[tuple[str, str]] = ()) -> HttpResponse:
    """A plain-text refusal of the server itself."""
    return HttpResponse(
        status, [("Content-Type", "text/plain; charset=utf-8"), *headers], f"{detail}\n".encode()
    )


def _tokens(value: str, *, lower: bool = True) -> list[str]:
    return [token.strip() for token in (value.lower() if lower else value).split(",")]


def _is_key(key: str) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        return False


def _is_allowed_origin(origin: str | None, host: str, origins: Sequence[str]) -> bool:
    if origin is None or "*" in origins or origin in origins:
        return True
    try:
        return bool(host) and urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False
