"""The messages are the contract's, in every form they take: classes, .proto files, generated code."""

from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from querator.api.http import proto
from querator.api.http.endpoints import ENDPOINTS, size_text
from querator.api.http.handler import HttpApi
from querator.api.http.messages import Message
from querator.api.http.proto import duh_pb2, querator_pb2
from querator.api.http.proto_text import proto_files
from querator.api.http.schema import all_messages, schema_of
from querator.core.catalog.values import PERMISSIONS
from tests.api.http.client import open_client
from tests.api.http.contract import endpoint_rows, message_rows

ROWS = message_rows()
CLASSES = {message.__name__: message for message in all_messages()}
TYPES = {
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_BYTES: "bytes",
}


def rows_of_class(message: type[Message]) -> list[tuple[int, str, str, bool, bool]]:
    kinds = {"timestamp": "ts"}
    return [
        (
            field.number,
            field.json_name,
            field.message.__name__ if field.message is not None else kinds.get(field.kind, field.kind),
            field.is_repeated,
            bool(field.alias),
        )
        for field in schema_of(message)
    ]


def descriptor_of(name: str) -> Descriptor:
    module: Any = duh_pb2 if name == "Reply" else querator_pb2
    descriptor: Descriptor = module.DESCRIPTOR.message_types_by_name[name]
    return descriptor


def rows_of_descriptor(descriptor: Descriptor) -> list[tuple[int, str, str, bool]]:
    rows = []
    for field in descriptor.fields:
        kind = TYPES.get(field.type, "")
        is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
        if is_map:
            kind = "map"
        elif field.message_type is not None:
            kind = "ts" if field.message_type.name == "Timestamp" else field.message_type.name
        rows.append((field.number, field.json_name, kind, field.is_repeated and not is_map))
    return sorted(rows)


@pytest.mark.parametrize("name", sorted(ROWS))
def test_a_class_has_the_fields_of_the_contract(name: str) -> None:
    assert rows_of_class(CLASSES[name]) == ROWS[name]


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_generated_code_has_the_fields_of_the_class(name: str) -> None:
    """Of the extensions as well."""
    wanted = [row[:4] for row in rows_of_class(CLASSES[name])]
    assert rows_of_descriptor(descriptor_of(name)) == wanted


def test_beyond_the_contract_there_are_only_extensions() -> None:
    assert all(name.startswith("X") for name in CLASSES.keys() - ROWS.keys())


def test_packages_are_those_of_the_contract() -> None:
    assert descriptor_of("Reply").full_name == "duh.v1.Reply"
    assert descriptor_of("QueueInfo").full_name == "querator.QueueInfo"


def test_proto_files_are_current() -> None:
    """``python -m querator.api.http.proto_text`` writes them."""
    folder = Path(proto.__file__).parent
    for name, text in proto_files().items():
        assert (folder / name).read_text() == text


async def test_endpoints_are_those_of_the_contract(autojump_clock: object) -> None:
    async with open_client() as client:
        api: HttpApi = client.api
        found = [
            (
                endpoint.path,
                endpoint.request.__name__,
                endpoint.reply.__name__,
                api._body_bytes_max(endpoint),
                size_text(api._body_bytes_max(endpoint)),
            )
            for endpoint in ENDPOINTS
            if not endpoint.path.startswith("/v1/x/")
        ]
    assert found == endpoint_rows()


def test_every_endpoint_asks_for_a_permission_there_is() -> None:
    for endpoint in ENDPOINTS:
        assert endpoint.permission in PERMISSIONS


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (512, "512B"),
        (1_023, "1.0KB"),
        (1_024, "1.0KiB"),
        (999, "999B"),
        (5_000_000, "5.0MB"),
        (5 << 20, "5.0MiB"),
    ],
)
def test_size_texts(size: int, text: str) -> None:
    assert size_text(size) == text
