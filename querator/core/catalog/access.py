"""Who is asking, and may they: decided from the catalog in memory, never by a read.

A key is ``qtr-<tag>-<entropy>``. It is found by its public prefix and compared as a SHA-256 in
constant time; a prefix that nobody has is compared as well, with nothing.
"""

import enum
import hashlib
import hmac
from typing import Final

import attrs

from querator.core.catalog.state import Catalog
from querator.core.catalog.values import ANONYMOUS_USER, SYSTEM_NAMESPACE
from querator.core.ids import NEVER, Instant
from querator.core.ksuid import ALPHABET, base62

KEY_SECRET_BYTES: Final = 32
KEY_SECRET_LENGTH: Final = 43
"""Base62 digits of 32 bytes."""
KEY_PREFIX_LENGTH: Final = 8
"""Digits of the secret that its prefix shows."""
KEY_TAG_LENGTH_MAX: Final = 16
KEY_SECRET_LENGTH_MAX: Final = 128
"""No key of ours is longer than 43; the bound keeps hashing cheap."""

_TAG_CHARACTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
_SECRET_CHARACTERS: Final = frozenset(ALPHABET)
_NO_HASH: Final = bytes(32)


@attrs.frozen
class Principal:
    """Somebody who was recognised."""

    user_id: str
    key_id: str = ""
    scope: str = ""
    """The only namespace its key works in; "": any."""
    expires_at: Instant = NEVER


ANONYMOUS: Final = Principal(ANONYMOUS_USER)


class KeyFault(enum.StrEnum):
    """Why a key is not taken."""

    MALFORMED = "malformed"
    UNKNOWN = "unknown"
    EXPIRED = "expired"


def is_key_tag(tag: str) -> bool:
    """Only lower-case letters and digits (none at all included)."""
    return _TAG_CHARACTERS.issuperset(tag)


def make_key(tag: str, secret: bytes) -> tuple[str, str]:
    """The text of a key and its prefix, from 32 bytes that nobody can guess."""
    digits = base62(int.from_bytes(secret[:KEY_SECRET_BYTES], "big"), KEY_SECRET_LENGTH)
    head = f"qtr-{tag}-"
    return head + digits, head + digits[:KEY_PREFIX_LENGTH]


def hash_key(key: str) -> bytes:
    """What is stored of a key."""
    return hashlib.sha256(key.encode()).digest()


def parse_key(key: str) -> str | None:
    """The key's public prefix; ``None``: it is not of a key's form."""
    parts = key.split("-", 2)
    if len(parts) != 3 or parts[0] != "qtr":
        return None
    _, tag, secret = parts
    if not 1 <= len(tag) <= KEY_TAG_LENGTH_MAX or not is_key_tag(tag):
        return None
    if not KEY_SECRET_LENGTH <= len(secret) <= KEY_SECRET_LENGTH_MAX or not _SECRET_CHARACTERS.issuperset(
        secret
    ):
        return None
    return f"qtr-{tag}-{secret[:KEY_PREFIX_LENGTH]}"


def authenticate(catalog: Catalog, key: str, now: Instant) -> Principal | KeyFault:
    """Whose key this is. The answer holds until the catalog changes or ``expires_at`` comes."""
    prefix = parse_key(key)
    if prefix is None:
        return KeyFault.MALFORMED
    given = hash_key(key)
    found = None
    candidates = catalog.keys_of_prefix.get(prefix, ())
    if not candidates:
        hmac.compare_digest(given, _NO_HASH)
    for key_id in candidates:
        candidate = catalog.keys[key_id]
        if hmac.compare_digest(given, candidate.hash):
            found = candidate
    if found is None:
        return KeyFault.UNKNOWN
    if found.expires_at != NEVER and now >= found.expires_at:
        return KeyFault.EXPIRED
    if found.user_id not in catalog.users:
        return KeyFault.MALFORMED
    return Principal(found.user_id, found.id, found.scope, found.expires_at)


def is_current(catalog: Catalog, principal: Principal, now: Instant) -> bool:
    """Whether a principal recognised earlier (an open session) still is: not revoked, not expired."""
    if principal.expires_at != NEVER and now >= principal.expires_at:
        return False
    return not principal.key_id or principal.key_id in catalog.keys


def is_allowed(catalog: Catalog, principal: Principal, namespace: str, permission: str) -> bool:
    """Whether the principal has the permission in the namespace."""
    if principal.scope and namespace not in (principal.scope, SYSTEM_NAMESPACE):
        return False
    if _has(catalog, principal.user_id, namespace, permission):
        return True
    return namespace != SYSTEM_NAMESPACE and _has(catalog, principal.user_id, SYSTEM_NAMESPACE, permission)


def _has(catalog: Catalog, user_id: str, namespace: str, permission: str) -> bool:
    for role_id in catalog.grants.get((user_id, namespace), ()):
        if permission in catalog.permissions_of_role[role_id]:
            return True
    return False
