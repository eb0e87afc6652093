"""JSON by proto3's rules: strict in, exact out.

Two ways in. The fast one is msgspec's, and takes what is written as we would write it. Whatever it
does not take (another spelling, ``null``, numbers in strings, base64 of the other alphabet, or a fault)
goes to the slow one, which knows all of the rules and names the fault. msgspec lets a repeated
field pass; so a message is taken the fast way only if writing it again yields as many colons as were
read, which, without backslashes in it, no repetition survives.
"""

import binascii
import json
import re
from typing import Any, Final, TypeVar

import msgspec

from querator.api.http.messages import INT32_MAX, INT32_MIN, Message
from querator.api.http.schema import FieldSchema, schema_of
from querator.api.http.stamps import Stamp, parse_stamp, print_stamp

_Message = TypeVar("_Message", bound=Message)

_NUMBER: Final = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)
_DIGITS_MAX: Final = 64
_DEPTH_MAX: Final = 32


class DecodeError(ValueError):
    """The body is not what the endpoint reads; its text is told to the client."""


def _encode_hook(value: Any) -> Any:
    if isinstance(value, Stamp):
        return print_stamp(value)
    raise NotImplementedError(f"{type(value)} is not part of a message")


def _decode_hook(kind: type, value: Any) -> Any:
    if kind is Stamp and isinstance(value, str):
        return parse_stamp(value)
    raise ValueError(f"expected a timestamp, got {value!r}")


_encoder: Final = msgspec.json.Encoder(enc_hook=_encode_hook)
_decoders: Final[dict[type[Message], msgspec.json.Decoder[Any]]] = {}


def encode_json(message: Message) -> bytes:
    """The message as JSON; zero values are left out."""
    return _encoder.encode(message)


def decode_json(body: bytes, kind: type[_Message]) -> _Message:
    """The message that ``body`` is.

    Raises:
        DecodeError: it is none.
    """
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind, dec_hook=_decode_hook)
    if b"\\" not in body:
        try:
            message: _Message = decoder.decode(body)
        except (msgspec.DecodeError, ValueError, RecursionError):
            return _decode_slowly(body, kind)
        if _encoder.encode(message).count(b":") == body.count(b":"):
            return message
    return _decode_slowly(body, kind)


# --- the slow way -------------------------------------------------------------------------------


class _Object(list[tuple[str, Any]]):
    """A JSON object as it was written: every member, in order."""


class _Number(str):
    """A JSON number as it was written."""

    __slots__ = ()


def _refuse_constant(name: str) -> Any:
    raise DecodeError(f"proto: syntax error: invalid value {name}")


_parser: Final = json.JSONDecoder(
    object_pairs_hook=_Object, parse_int=_Number, parse_float=_Number, parse_constant=_refuse_constant
)


def _decode_slowly(body: bytes, kind: type[_Message]) -> _Message:
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise DecodeError("proto: syntax error: invalid UTF-8") from error
    try:
        value = _parser.decode(text)
    except json.JSONDecodeError as error:
        line, column = error.lineno, error.colno
        rest = text[error.pos :].split(maxsplit=1)
        what = f"invalid value {rest[0][:32]}" if error.pos and rest else "unexpected token "
        raise DecodeError(f"proto: syntax error (line {line}:{column}): {what}") from error
    except RecursionError as error:
        raise DecodeError("proto: exceeded max recursion depth") from error
    return _to_message(value, kind, 0)


def _to_message(value: Any, kind: type[_Message], depth: int) -> _Message:
    if not isinstance(value, _Object):
        raise DecodeError(f"proto: syntax error: unexpected token {_show(value)}")
    if depth > _DEPTH_MAX:
        raise DecodeError("proto: exceeded max recursion depth")
    names = _names(kind)
    values: dict[str, Any] = {}
    seen: dict[str, None] = {}
    for name, member in value:
        field = names.get(name)
        if field is None:
            raise DecodeError(f"proto: unknown field {_quote(name)}")
        if field.name in seen:
            raise DecodeError(f"proto: duplicate field {_quote(name)}")
        seen[field.name] = None
        if member is not None:
            values[field.name] = _to_field(member, field, depth)
    return kind(**values)


_names_of: Final[dict[type[Message], dict[str, FieldSchema]]] = {}


def _names(kind: type[Message]) -> dict[str, FieldSchema]:
    names = _names_of.get(kind)
    if names is None:
        names = _names_of[kind] = {}
        for field in schema_of(kind):
            names[field.json_name] = field
            if field.alias:
                names[field.alias] = field
    return names


def _to_field(value: Any, field: FieldSchema, depth: int) -> Any:
    if not field.is_repeated:
        return _to_value(value, field, depth)
    if isinstance(value, list) and not isinstance(value, _Object):
        return [_to_value(entry, field, depth) for entry in value]
    raise _wrong(value, field)


def _to_value(value: Any, field: FieldSchema, depth: int) -> Any:
    if field.message is not None:
        return _to_message(value, field.message, depth + 1)
    convert = _CONVERT.get(field.kind)
    converted = None if convert is None else convert(value)
    if converted is None:
        raise _wrong(value, field)
    return converted


def _wrong(value: Any, field: FieldSchema) -> DecodeError:
    return DecodeError(f"proto: invalid value for {field.kind} field {field.json_name}: {_show(value)}")


def _show(value: Any) -> str:
    if isinstance(value, _Object):
        return "{"
    if isinstance(value, _Number):
        return value[:_DIGITS_MAX]
    if isinstance(value, list):
        return "["
    return _quote(value)[:_DIGITS_MAX]


def _quote(value: Any) -> str:
    """As JSON, fit to be told: half of a surrogate pair is no text."""
    return json.dumps(value, ensure_ascii=False).encode(errors="replace").decode()


def _to_string(value: Any) -> str | None:
    if not isinstance(value, str) or isinstance(value, _Number):
        return None
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return None
    return value


def _to_int32(value: Any) -> int | None:
    number = _to_int(value)
    return number if number is not None and INT32_MIN <= number <= INT32_MAX else None


def _to_int(value: Any) -> int | None:
    """A number, or one in a string; ``1.0`` and ``1e2`` are integers too."""
    if not isinstance(value, str) or len(value) > _DIGITS_MAX or _NUMBER.fullmatch(value) is None:
        return None
    mantissa, _, exponent = value.lower().partition("e")
    whole, _, fraction = mantissa.partition(".")
    shift = int(exponent or "0") - len(fraction)
    digits = int(whole + fraction)
    if shift < 0:
        unit: int = 10 ** min(-shift, 2 * _DIGITS_MAX)
        number, rest = divmod(abs(digits), unit)
        if rest:
            return None
        return -number if digits < 0 else number
    if shift > _DIGITS_MAX:
        return None if digits else 0
    scale: int = 10**shift
    return digits * scale


def _to_bool(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _to_bytes(value: Any) -> bytes | None:
    """Standard or URL alphabet; padded rightly, or not at all."""
    text = _to_string(value)
    if text is None or not text.isascii():
        return None
    if "-" in text or "_" in text:
        if "+" in text or "/" in text:
            return None
        text = text.replace("-", "+").replace("_", "/")
    if len(text) % 4:
        if "=" in text:
            return None
        text += "=" * (-len(text) % 4)
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        return None


def _to_stamp(value: Any) -> Stamp | None:
    if not isinstance(value, str) or isinstance(value, _Number):
        return None
    try:
        return parse_stamp(value)
    except ValueError:
        return None


_CONVERT: Final[dict[str, Any]] = {
    "string": _to_string,
    "int32": _to_int32,
    "int64": _to_int,
    "bool": _to_bool,
    "bytes": _to_bytes,
    "timestamp": _to_stamp,
}
