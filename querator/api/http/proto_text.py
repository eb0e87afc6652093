"""The ``.proto`` files of the messages, from the message classes.

After a change of messages.py, in the root of the repository::

    python -m querator.api.http.proto_text
    python -m grpc_tools.protoc -I. --python_out=. querator/api/http/proto/*.proto

(``pip install grpcio-tools`` into an environment of its own: it is needed for nothing else.)
"""

from pathlib import Path
from typing import Final

from querator.api.http.messages import Message, Reply
from querator.api.http.schema import FieldSchema, all_messages, schema_of

DIRECTORY: Final = Path(__file__).parent / "proto"


def proto_files() -> dict[str, str]:
    """Name to text: the reply that all APIs of this kind share, and all the rest."""
    return {
        "duh.proto": _file("duh.v1", [Reply]),
        "querator.proto": _file("querator", [message for message in all_messages() if message is not Reply]),
    }


def _file(package: str, messages: list[type[Message]]) -> str:
    has_stamps = any(field.kind == "timestamp" for message in messages for field in schema_of(message))
    head = [
        "// Written by querator/api/http/proto_text.py from messages.py.",
        'syntax = "proto3";',
        "",
        f"package {package};",
        "",
    ]
    if has_stamps:
        head += ['import "google/protobuf/timestamp.proto";', ""]
    return "\n".join([*head, *(_message(message) for message in messages)])


def _message(message: type[Message]) -> str:
    lines = [_field(field) for field in schema_of(message)]
    return "\n".join([f"message {message.__name__} {{", *lines, "}", ""])


def _field(field: FieldSchema) -> str:
    if field.kind == "map":
        kind = "map<string, string>"
    elif field.kind == "timestamp":
        kind = "google.protobuf.Timestamp"
    elif field.message is not None:
        kind = field.message.__name__
    else:
        kind = field.kind
    label = "repeated " if field.is_repeated else ""
    return f'  {label}{kind} {field.name} = {field.number} [json_name = "{field.json_name}"];'


if __name__ == "__main__":
    for name, text in proto_files().items():
        (DIRECTORY / name).write_text(text)
