"""Both codecs: golden frames, strict types, faults with their ids, limits."""

import typing

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from querator.core import limits
from querator.errors import ProtocolError
from querator.protocol import messages as wire
from querator.protocol.codec import CODECS, JSON, MSGPACK, Codec, Fault
from tests.protocol.golden import golden_path, read_frame, tag
from tests.protocol.samples import client_samples, server_samples

both = pytest.mark.parametrize("codec", CODECS.values(), ids=lambda codec: codec.subprotocol)


def pack(codec: Codec, value: object) -> str | bytes:
    """Any value as a frame, sent by a client that knows no types."""
    return msgspec.json.encode(value).decode() if codec.is_text else msgspec.msgpack.encode(value)


@both
def test_every_message_has_a_sample(codec: Codec) -> None:
    assert {type(m) for m in client_samples(codec)} == set(typing.get_args(wire.ClientMessage))
    assert {type(m) for m in server_samples(codec)} == set(typing.get_args(wire.ServerMessage))


@both
def test_golden_frames_of_clients_are_read_and_written_unchanged(codec: Codec) -> None:
    for message in client_samples(codec):
        frame = read_frame(golden_path("client", message, codec), codec)
        assert codec.decode_client(frame) == [message], tag(message)
        assert codec.encode([message]) == frame, tag(message)


@both
def test_golden_frames_of_servers_are_read_and_written_unchanged(codec: Codec) -> None:
    for message in server_samples(codec):
        frame = read_frame(golden_path("server", message, codec), codec)
        assert codec.decode_server(frame) == [message], tag(message)
        assert codec.encode([message]) == frame, tag(message)


@both
def test_batches_joined_are_the_frame_of_all_messages(codec: Codec) -> None:
    for sizes in ([1], [3, 4], [0, 2], [15, 1], [16, 20], [70_000, 1], [0]):
        messages = [[wire.Settled(id=n, done=1) for n in range(size)] for size in sizes]
        joined = codec.join([codec.encode_batch(batch) for batch in messages])
        assert joined == codec.encode([message for batch in messages for message in batch])


@both
@pytest.mark.parametrize(
    ("message", "path"),
    [
        ({"type": "reserve", "id": 1, "queue": "q", "items": "5"}, "$[0].items"),
        ({"type": "reserve", "id": 1, "queue": "q", "items": 5.0}, "$[0].items"),
        ({"type": "reserve", "id": 1, "queue": "q", "items": True}, "$[0].items"),
        ({"type": "reserve", "id": 1, "queue": "q", "items": None}, "$[0].items"),
        ({"type": "reserve", "id": 1, "queue": 7}, "$[0].queue"),
        ({"type": "reserve", "id": 1, "queue": "q", "held": 1}, "$[0].held"),
        ({"type": "reserve", "id": 1, "queue": "q", "priority": 1}, "$[0]"),
        ({"type": "reserve", "id": 1}, "$[0]"),
        ({"type": "complete", "id": 1, "token": "t", "ranges": [[0]]}, "$[0].ranges[0]"),
        ({"type": "complete", "id": 1, "token": "t", "ranges": [[0, "1"]]}, "$[0].ranges[0][1]"),
        ({"type": "produce", "id": 1, "queue": "q", "texts": [1]}, "$[0].texts[0]"),
        ({"type": "produce", "id": 1, "queue": "q", "payloads": [7]}, "$[0].payloads[0]"),
        ({"type": "lease", "id": 1}, "$[0].type"),
        ({"id": 1}, "$[0]"),
    ],
)
def test_a_fault_names_its_path_and_its_id(codec: Codec, message: dict[str, object], path: str) -> None:
    (fault,) = codec.decode_client(pack(codec, [message]))
    assert isinstance(fault, Fault)
    assert (fault.path, fault.id) == (path, 1)
    assert fault.detail


@both
def test_one_fault_leaves_the_other_messages_standing(codec: Codec) -> None:
    good = {"type": "stats", "id": 1, "queue": "q"}
    first, fault, last = codec.decode_client(
        pack(codec, [good, {"type": "stats", "id": 2}, {**good, "id": 3}])
    )
    assert first == wire.Stats(id=1, queue="q")
    assert isinstance(fault, Fault)
    assert (fault.path, fault.id) == ("$[1]", 2)
    assert last == wire.Stats(id=3, queue="q")


@both
@pytest.mark.parametrize("identity", ["1", 1.0, None, -1, 2**53, 10**18, [1], True])
def test_an_id_that_is_no_number_is_not_echoed(codec: Codec, identity: object) -> None:
    (fault,) = codec.decode_client(pack(codec, [{"type": "stats", "id": identity, "queue": "q"}]))
    assert isinstance(fault, Fault)
    assert fault.id is None


@both
def test_ids_up_to_the_largest_exact_integer_are_taken(codec: Codec) -> None:
    frame = pack(codec, [{"type": "stats", "id": wire.NUMBER_MAX, "queue": "q"}])
    assert codec.decode_client(frame) == [wire.Stats(id=wire.NUMBER_MAX, queue="q")]


def test_integers_of_any_length_are_refused_in_json() -> None:
    for digits in (17, 30, 5_000):
        (fault,) = JSON.decode_client('[{"type":"stats","id":%s,"queue":"q"}]' % ("9" * digits))
        assert isinstance(fault, Fault)
        assert fault.id is None


@both
@pytest.mark.parametrize("value", [{"type": "stats"}, 5, "x", None, True])
def test_a_frame_that_is_no_array_is_refused_whole(codec: Codec, value: object) -> None:
    with pytest.raises(ProtocolError):
        codec.decode_client(pack(codec, value))


@both
def test_an_element_that_is_no_object_is_a_fault_without_id(codec: Codec) -> None:
    faults = codec.decode_client(pack(codec, [5, None, [], "x"]))
    assert [(fault.path, fault.id) for fault in faults if isinstance(fault, Fault)] == [
        (f"$[{index}]", None) for index in range(4)
    ]


def test_text_that_is_not_json_is_refused_whole() -> None:
    for text in ("", "[", "[{]", "nonsense", '[{"type":"stats"}] x', "[NaN]", '["\\ud800"]', "\ufeff[]"):
        with pytest.raises(ProtocolError):
            JSON.decode_client(text)


def test_bytes_that_are_not_messagepack_are_refused_whole() -> None:
    for data in (b"", b"\x91", b"\xc1", b"\x90x", b"\xdd\xff\xff\xff\xff", b"\xdc\xff\xff\xc0"):
        with pytest.raises(ProtocolError):
            MSGPACK.decode_client(data)


def test_invalid_utf8_in_messagepack_is_a_fault_of_its_message() -> None:
    frame = b"\x91\x83\xa4type\xa5stats\xa2id\x01\xa5queue\xa2\xff\xfe"
    (fault,) = MSGPACK.decode_client(frame)
    assert isinstance(fault, Fault)
    assert (fault.detail, fault.id) == ("a string is not valid UTF-8", 1)


@both
def test_the_wrong_kind_of_message_is_refused(codec: Codec) -> None:
    other = MSGPACK if codec.is_text else JSON
    with pytest.raises(ProtocolError):
        codec.decode_client(other.encode([wire.Confirm(push=1)]))
    with pytest.raises(ProtocolError):
        codec.decode_server(other.encode([wire.Empty(id=1)]))


@both
def test_a_frame_holds_as_many_messages_as_the_limit_says(codec: Codec) -> None:
    message = {"type": "confirm", "push": 1}
    at_limit = codec.decode_client(pack(codec, [message] * limits.FRAME_COMMANDS_MAX))
    assert len(at_limit) == limits.FRAME_COMMANDS_MAX
    with pytest.raises(ProtocolError):
        codec.decode_client(pack(codec, [message] * (limits.FRAME_COMMANDS_MAX + 1)))


@both
def test_too_many_faulty_messages_are_refused_whole(codec: Codec) -> None:
    assert len(codec.decode_client(pack(codec, [0] * limits.FRAME_COMMANDS_MAX))) == limits.FRAME_COMMANDS_MAX
    for count in (limits.FRAME_COMMANDS_MAX + 1, 17 * limits.FRAME_COMMANDS_MAX):
        with pytest.raises(ProtocolError):
            codec.decode_client(pack(codec, [0] * count))


def test_deep_nesting_is_refused_not_recursed() -> None:
    deep = '[{"type":"call","id":1,"method":"x","params":' + "[" * 100_000 + "]" * 100_000 + "}]"
    with pytest.raises(ProtocolError, match="nested"):
        JSON.decode_client(deep)
    packed = b"\x91\x84\xa4type\xa4call\xa2id\x01\xa6method\xa1x\xa6params" + b"\x91" * 100_000 + b"\xc0"
    with pytest.raises(ProtocolError, match="nested"):
        MSGPACK.decode_client(packed)


def test_payloads_in_json_are_strict_base64() -> None:
    for text in ("YQ=", "YQ", "Y Q==", "-_-_", "é"):
        (fault,) = JSON.decode_client(
            pack(JSON, [{"type": "produce", "id": 1, "queue": "q", "payloads": [text]}])
        )
        assert isinstance(fault, Fault)
        assert fault.path == "$[0].payloads[0]"


@both
def test_values_travel_as_params_and_results(codec: Codec) -> None:
    call = wire.Call(id=1, method="m", params=codec.encode_value({"a": [1]}))
    (read,) = codec.decode_client(codec.encode([call]))
    assert isinstance(read, wire.Call)
    assert codec.decode_value(read.params, dict[str, list[int]]) == {"a": [1]}
    with pytest.raises(ProtocolError) as caught:
        codec.decode_value(read.params, dict[str, list[str]])
    assert caught.value.path == "$[...][0]"


@both
def test_a_call_without_params_has_an_empty_object(codec: Codec) -> None:
    (read,) = codec.decode_client(codec.encode([wire.Call(id=1, method="m")]))
    assert isinstance(read, wire.Call)
    assert codec.decode_value(read.params, dict[str, int]) == {}


@given(st.binary(max_size=200))
def test_no_bytes_break_the_messagepack_decoder(data: bytes) -> None:
    try:
        MSGPACK.decode_client(data)
    except ProtocolError as error:
        assert error.detail


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda data: data.decode("latin-1")))
def test_no_text_breaks_the_json_decoder(text: str) -> None:
    try:
        JSON.decode_client(text)
    except ProtocolError as error:
        assert error.detail
