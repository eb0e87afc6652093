"""JSON by proto3's rules, with the official implementation as the judge; protobuf to and fro."""

import json
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from querator.api.http.json_codec import DecodeError, decode_json, encode_json
from querator.api.http.messages import (
    Message,
    NamespacesListRequest,
    QueueCompleteRequest,
    QueueInfo,
    QueueLeaseRequest,
    QueueProduceItem,
    QueueProduceRequest,
    QueueRetryRequest,
    Reply,
    StorageItem,
    StorageItemsImportRequest,
)
from querator.api.http.proto import duh_pb2, querator_pb2
from querator.api.http.proto_codec import decode_protobuf, encode_protobuf
from querator.api.http.schema import FieldSchema, all_messages, schema_of
from querator.api.http.stamps import STAMP_MAX, STAMP_MIN, Stamp

TEXTS = st.text(st.characters(codec="utf-8"), max_size=8)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "string": TEXTS,
    "int32": st.integers(-(2**31), 2**31 - 1),
    "int64": st.integers(0, 2**53),
    "bool": st.booleans(),
    "bytes": st.binary(max_size=12),
    "timestamp": st.none() | st.integers(STAMP_MIN, STAMP_MAX).map(Stamp),
    "map": st.dictionaries(TEXTS, TEXTS, max_size=2),
}


def values_of(field: FieldSchema, depth: int) -> st.SearchStrategy[Any]:
    one = VALUES[field.kind] if field.message is None else messages_of(field.message, depth - 1)
    if not field.is_repeated:
        return one
    return st.lists(one, max_size=3 if depth else 0)


def messages_of(kind: type[Message], depth: int = 2) -> st.SearchStrategy[Message]:
    return st.builds(kind, **{field.name: values_of(field, depth) for field in schema_of(kind)})


def wire_class(kind: type[Message]) -> Any:
    return getattr(duh_pb2 if kind is Reply else querator_pb2, kind.__name__)


WITHOUT_INT64 = [kind for kind in all_messages() if all(field.kind != "int64" for field in schema_of(kind))]


@given(st.sampled_from(WITHOUT_INT64).flatmap(messages_of))
def test_our_json_is_what_protobuf_reads(message: Message) -> None:
    """The official parser reads our JSON as the message that our protobuf is."""
    kind = type(message)
    wire = wire_class(kind)
    assert json_format.Parse(encode_json(message), wire()) == wire.FromString(encode_protobuf(message))


@given(st.sampled_from(WITHOUT_INT64).flatmap(messages_of))
def test_we_leave_out_what_protobuf_leaves_out(message: Message) -> None:
    kind = type(message)
    official = json.loads(json_format.MessageToJson(wire_class(kind).FromString(encode_protobuf(message))))
    assert json.loads(encode_json(message)) == official


@given(st.sampled_from(WITHOUT_INT64).flatmap(messages_of), st.sampled_from([None, 2]), st.booleans())
def test_we_read_what_protobuf_writes(message: Message, indent: int | None, ascii_only: bool) -> None:
    """With white space and escapes or without."""
    kind = type(message)
    text = json.dumps(json.loads(encode_json(message)), indent=indent, ensure_ascii=ascii_only)
    assert decode_json(text.encode(), kind) == message


@given(st.sampled_from(all_messages()).flatmap(messages_of))
def test_protobuf_is_read_as_it_was_written(message: Message) -> None:
    assert decode_protobuf(encode_protobuf(message), type(message)) == message


def read(text: str, kind: type[Message]) -> Any:
    return decode_json(text.encode(), kind)


def test_names_with_an_alias_may_be_camel_case() -> None:
    read_back = read('{"queueName": "q", "batchSize": "7", "clientId": "c"}', QueueLeaseRequest)
    assert read_back == QueueLeaseRequest(queue_name="q", batch_size=7, client_id="c")


def test_null_is_unset() -> None:
    text = '{"queue_name": null, "items": null, "request_timeout": "1m"}'
    assert read(text, QueueProduceRequest) == QueueProduceRequest(request_timeout="1m")
    assert read('{"enqueue_at": null}', QueueProduceItem) == QueueProduceItem()


@pytest.mark.parametrize(
    ("number", "value"),
    [("5", 5), ('"5"', 5), ("-3", -3), ("1e2", 100), ("2.0", 2), ('"2.50e1"', 25), ("0e99", 0), ("-0", 0)],
)
def test_numbers_may_be_in_strings_and_in_any_notation(number: str, value: int) -> None:
    assert read(f'{{"limit": {number}}}', NamespacesListRequest).limit == value


@pytest.mark.parametrize("text", ["YWI/", "YWI_", "YQ==", "YQ"])
def test_bytes_are_read_in_both_alphabets_with_or_without_padding(text: str) -> None:
    wanted = {"YWI/": b"ab?", "YWI_": b"ab?"}.get(text, b"a")
    assert read(f'{{"bytes": "{text}"}}', QueueProduceItem).bytes == wanted


@pytest.mark.parametrize(
    ("text", "stamp"),
    [
        ("1970-01-01T00:00:01Z", 1_000_000),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1969-12-31T23:00:00.5-01:00", 500_000),
        ("1970-01-01T00:00:00.123456789Z", 123_456),
        ("0001-01-01T00:00:00Z", STAMP_MIN),
        ("9999-12-31T23:59:59.999999Z", STAMP_MAX),
    ],
)
def test_timestamps_are_read_with_any_offset(text: str, stamp: int) -> None:
    for spaced in ("", " "):
        assert read(f'{{{spaced}"enqueue_at":"{text}"}}', QueueProduceItem).enqueue_at == stamp


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (QueueLeaseRequest, b""),
        (QueueLeaseRequest, b"bad"),
        (QueueLeaseRequest, b"[]"),
        (QueueLeaseRequest, b"null"),
        (QueueLeaseRequest, b"{} {}"),
        (QueueLeaseRequest, b'{"nope": 1}'),
        (QueueLeaseRequest, b'{"queue_name": "a", "queue_name": "b"}'),
        (QueueLeaseRequest, b'{"queue_name":"a","queue_name":"b"}'),
        (QueueLeaseRequest, b'{"queue_name": "a", "queueName": "b"}'),
        (QueueLeaseRequest, b'{"queue_name":"\\u003a","queue_name":"b"}'),
        (QueueLeaseRequest, b'{"queue_name": 5}'),
        (QueueLeaseRequest, b'{"queue_name": "\xff"}'),
        (QueueLeaseRequest, b'{"queue_name": "\\ud800"}'),
        (QueueLeaseRequest, b'{"\\ud800": 1}'),
        (QueueLeaseRequest, b'{"batch_size": "\\udfff"}'),
        (QueueLeaseRequest, b'{"queue_name": "a\nb"}'),
        (QueueLeaseRequest, b'{"batch_size": 1.5}'),
        (QueueLeaseRequest, b'{"batch_size": "x"}'),
        (QueueLeaseRequest, b'{"batch_size": " 1"}'),
        (QueueLeaseRequest, b'{"batch_size": 2147483648}'),
        (QueueLeaseRequest, b'{"batch_size": 1e400}'),
        (QueueLeaseRequest, b'{"batch_size": NaN}'),
        (QueueLeaseRequest, b'{"batch_size": true}'),
        (QueueLeaseRequest, b'{"batch_size": ' + b"9" * 10_000 + b"}"),
        (QueueCompleteRequest, b'{"ids": "a"}'),
        (QueueCompleteRequest, b'{"ids": [null]}'),
        (QueueCompleteRequest, b'{"ids": {}}'),
        (QueueProduceRequest, b'{"items": [1]}'),
        (QueueProduceRequest, b'{"items": {}}'),
        (QueueProduceItem, b'{"bytes": "a"}'),
        (QueueProduceItem, b'{"bytes": "YQ=!"}'),
        (QueueProduceItem, b'{"bytes": "YQ="}'),
        (QueueProduceItem, b'{"bytes": "YQ==="}'),
        (QueueProduceItem, b'{"bytes": "===="}'),
        (QueueProduceItem, b'{"bytes": "YQ==YQ=="}'),
        (QueueProduceItem, b'{"bytes": "+_8="}'),
        (QueueProduceItem, b'{"enqueueAt": "yesterday"}'),
        (QueueProduceItem, b'{"enqueue_at": "2026-13-01T00:00:00Z"}'),
        (QueueProduceItem, b'{"enqueue_at": "2026-01-01 00:00:00Z"}'),
        (QueueProduceItem, b'{"enqueue_at": "2026-01-01T00:00:00"}'),
        (QueueProduceItem, b'{"enqueue_at": "2026-01-01T00:00:00+24:00"}'),
        (QueueProduceItem, b'{"enqueue_at": "9999-12-31T23:59:59-00:01"}'),
        (QueueProduceItem, b'{"enqueue_at": 5}'),
        (QueueRetryRequest, b'{"items": [{"dead": "true"}]}'),
        (QueueRetryRequest, b'{"items": [{"dead": 1}]}'),
        (QueueLeaseRequest, b"[" * 100_000),
        (NamespacesListRequest, b'{"pivot": "", "Limit": 1}'),
    ],
)
def test_what_is_not_the_message_is_refused(kind: type[Message], body: bytes) -> None:
    with pytest.raises(DecodeError, match=r"^proto: ") as refused:
        decode_json(body, kind)
    assert encode_json(Reply(455, message=str(refused.value))), "a text that can be told"


def test_fields_without_an_alias_have_one_name() -> None:
    with pytest.raises(DecodeError, match=r'unknown field "apiKeyTag"'):
        decode_json(b'{"apiKeyTag": "a"}', QueueInfo)


@pytest.mark.parametrize("body", [b"\xff", b"\x0a\x05ab", b"\x0a\x02\xff\xfe"])
def test_bad_protobuf_is_refused(body: bytes) -> None:
    with pytest.raises(DecodeError, match="proto: cannot parse invalid wire-format data"):
        decode_protobuf(body, QueueLeaseRequest)


def test_a_timestamp_out_of_range_is_refused_in_protobuf_as_well() -> None:
    wire = querator_pb2.StorageItem()  # type: ignore[attr-defined]
    wire.created_at.seconds = 2**60
    with pytest.raises(DecodeError):
        decode_protobuf(wire.SerializeToString(), StorageItem)


def test_unknown_protobuf_fields_are_passed_over() -> None:
    assert decode_protobuf(b"\xf8\x07\x01", QueueLeaseRequest) == QueueLeaseRequest()


def test_the_fast_way_is_taken_for_what_we_would_write_ourselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise it would not be one."""
    monkeypatch.setattr("querator.api.http.json_codec._decode_slowly", None)
    request = StorageItemsImportRequest(
        "q", 1, [StorageItem(payload=b"a:b", reference="x:y", created_at=Stamp(1_000_000))] * 3
    )
    assert decode_json(encode_json(request), StorageItemsImportRequest) == request
