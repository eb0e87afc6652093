"""What the message classes say about themselves, for the codecs, the ``.proto`` and OpenAPI."""

import functools
import types
from typing import Annotated, Any, Final, Literal, TypeAlias, get_args, get_origin, get_type_hints

import attrs

from querator.api.http.messages import Field, Message
from querator.api.http.stamps import Stamp
from querator.core.invariants import check

Kind: TypeAlias = Literal["string", "int32", "int64", "bool", "bytes", "timestamp", "message", "map"]

_KINDS: Final[dict[Any, Kind]] = {str: "string", int: "int32", bool: "bool", bytes: "bytes"}


@attrs.frozen
class FieldSchema:
    """One field of a message.

    ``name`` is the protobuf name and ours, ``json_name`` what JSON says, ``alias`` a second spelling
    that JSON input may use ("" where there is none).
    """

    number: int
    name: str
    json_name: str
    alias: str
    kind: Kind
    is_repeated: bool = False
    message: type[Message] | None = None


@functools.cache
def schema_of(message: type[Message]) -> tuple[FieldSchema, ...]:
    """The fields of a message, in order of number."""
    hints = get_type_hints(message, include_extras=True)
    names = dict(zip(message.__struct_fields__, message.__struct_encode_fields__, strict=True))
    fields = [_field(name, json_name, hints[name]) for name, json_name in names.items()]
    return tuple(sorted(fields, key=lambda field: field.number))


def _field(name: str, json_name: str, hint: Any) -> FieldSchema:
    check(get_origin(hint) is Annotated, f"field {name} has no number")
    kind_hint, *notes = get_args(hint)
    note = next(note for note in notes if isinstance(note, Field))
    alias = _camel(name) if note.has_alias else ""
    is_int32 = any(not isinstance(other, Field) for other in notes)
    kind, is_repeated, message = _kind(kind_hint, is_int32=is_int32)
    return FieldSchema(note.number, name, json_name, alias, kind, is_repeated, message)


def _kind(hint: Any, *, is_int32: bool) -> tuple[Kind, bool, type[Message] | None]:
    origin = get_origin(hint)
    if origin is list:
        kind, _, message = _kind(get_args(hint)[0], is_int32=False)
        return kind, True, message
    if origin is dict:
        return "map", False, None
    if origin is types.UnionType:
        check(Stamp in get_args(hint), f"{hint} is no type of a field")
        return "timestamp", False, None
    if hint is int:
        return ("int32" if is_int32 else "int64"), False, None
    if isinstance(hint, type) and issubclass(hint, Message):
        return "message", False, hint
    return _KINDS[hint], False, None


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


def all_messages() -> list[type[Message]]:
    """Every message, in the order of its definition."""
    return list(Message.__subclasses__())
