"""The two strings that clients keep and give back: reservation tokens and resume tokens.

A *reservation token* names a reservation: partition, nonce of the claim under which it was made,
number. It is not a secret: the partition refuses a nonce that is not the reservation's, and a
session only settles what its principal may. It is 21 bytes in base64, so that every 28 characters
decode to at most one reservation and each reservation has one spelling; clients treat it as opaque.

A *resume token* proves that this client was given a session, to any node that knows the shared
secret: an HMAC over session, generation and principal. It stays valid until the session ends.
"""

import binascii
import hashlib
import hmac
import struct
from typing import Final

import attrs

from querator.core.ids import PartitionId, ReservationNumber, SessionId

_LAYOUT: Final = struct.Struct(">BIQQ")
_VERSION: Final = 1
TOKEN_CHARS: Final = 28
PARTITION_MAX: Final = 2**32 - 1
NONCE_MAX: Final = 2**63 - 1
RESUME_TOKEN_CHARS_MAX: Final = 256

_PACK: Final = _LAYOUT.pack
_UNPACK: Final = _LAYOUT.unpack
_ENCODE: Final = binascii.b2a_base64
_DECODE: Final = binascii.a2b_base64


def encode_token(partition: PartitionId, nonce: int, reservation: ReservationNumber) -> str:
    """The token of a reservation."""
    return _ENCODE(_PACK(_VERSION, partition, nonce, reservation), newline=False).decode("ascii")


def decode_token(token: str) -> tuple[PartitionId, int, ReservationNumber] | None:
    """(partition, nonce, reservation) of a token; ``None`` if it is not one."""
    if len(token) != TOKEN_CHARS:
        return None
    try:
        version, partition, nonce, reservation = _UNPACK(_DECODE(token, strict_mode=True))
    except (ValueError, struct.error):
        return None
    if version != _VERSION or nonce > NONCE_MAX or not 0 < reservation <= NONCE_MAX:
        return None
    return partition, nonce, reservation


@attrs.frozen
class Resumption:
    """What a good resume token says."""

    session: SessionId
    generation: int


def encode_resume_token(secret: bytes, session: SessionId, generation: int, principal: str) -> str:
    """The token that lets ``principal`` take ``session`` over from connection ``generation``."""
    return f"{session}.{generation}.{_seal(secret, session, generation, principal)}"


def decode_resume_token(secret: bytes, token: str, principal: str) -> Resumption | None:
    """What the token says, if this node's secret made it for this principal; else ``None``."""
    if len(token) > RESUME_TOKEN_CHARS_MAX or not token.isascii():
        return None
    parts = token.split(".")
    if len(parts) != 3 or not parts[0]:
        return None
    session, digits, seal = parts
    if not digits.isdigit() or len(digits) > 18 or (digits[0] == "0" and digits != "0"):
        return None
    generation = int(digits)
    if not hmac.compare_digest(_seal(secret, SessionId(session), generation, principal), seal):
        return None
    return Resumption(SessionId(session), generation)


def _seal(secret: bytes, session: SessionId, generation: int, principal: str) -> str:
    # The principal comes last and the others cannot hold a NUL, so no two triples share a message.
    message = f"querator.resume.1\0{session}\0{generation}\0{principal}".encode("utf-8", "surrogatepass")
    return hmac.new(secret, message, hashlib.sha256).hexdigest()
