"""Which encoding a body is in, and which one the answer is wanted in (CONTRACT.md 1.2)."""

import enum
from collections.abc import Mapping
from typing import Final

from querator.api.http.refusals import CONTENT_ERROR, Refused


class Encoding(enum.Enum):
    JSON = "application/json"
    PROTOBUF = "application/protobuf"


_JSON_NAMES: Final = ("", "*/*", "application/*", "application/json")
_PROTOBUF_NAME: Final = "application/protobuf"


def _first(value: str) -> str:
    """Only the first element of a header counts."""
    return value.partition(";")[0].partition(",")[0].strip()


def _encoding(name: str) -> Encoding | None:
    lowered = name.lower()
    if lowered in _JSON_NAMES:
        return Encoding.JSON
    return Encoding.PROTOBUF if lowered == _PROTOBUF_NAME else None


def answer_encoding(headers: Mapping[str, str]) -> Encoding:
    """Raises:
    Refused: nothing that the client accepts.
    """
    value = headers.get("accept")
    if not value:
        return Encoding.JSON
    name = _first(value)
    found = _encoding(name)
    if found is None:
        raise Refused(
            CONTENT_ERROR,
            f"Accept header '{name}' is invalid format or unrecognized content type, only "
            "[application/json,application/protobuf] are supported by this method",
        )
    return found


def error_encoding(headers: Mapping[str, str]) -> Encoding:
    """For an error: JSON when the client accepts nothing we have."""
    value = headers.get("accept")
    return _encoding(_first(value)) or Encoding.JSON if value else Encoding.JSON


def body_encoding(headers: Mapping[str, str]) -> Encoding:
    """Raises:
    Refused: not one we read.
    """
    value = headers.get("content-type")
    if not value:
        return Encoding.JSON
    found = _encoding(_first(value))
    if found is None:
        raise Refused(
            CONTENT_ERROR,
            f"Content-Type header '{value}' is invalid format or unrecognized content type",
        )
    return found
