"""Where a server is, as people write it."""

import pytest

from querator.client import Address, parse_address
from querator.client.address import parse_addresses
from querator.core.limits import CLIENT_ADDRESSES_MAX


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("localhost:2319", Address("localhost", 2319)),
        ("example.org", Address("example.org", 2319)),
        ("ws://localhost:99", Address("localhost", 99)),
        ("wss://queue.example.org", Address("queue.example.org", 443, secure=True)),
        (
            "https://queue.example.org:8443/q/v1/stream",
            Address("queue.example.org", 8443, "/q/v1/stream", True),
        ),
        ("[::1]:5", Address("::1", 5)),
        (" 127.0.0.1:1 ", Address("127.0.0.1", 1)),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text", ["", ":", "a:b", "a:0", "a:70000", "ftp://a:1", "ws://user@a:1", "a:1?x=1", "a b:1", "ws://"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        parse_address(text)


def test_several_nodes_are_named_with_commas_between_them() -> None:
    assert parse_addresses("a:1, b,wss") == (Address("a", 1), Address("b", 2319), Address("wss", 2319))
    assert len(parse_addresses(",".join(["a"] * CLIENT_ADDRESSES_MAX))) == CLIENT_ADDRESSES_MAX


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a,", "HOST:PORT"),
        ("a,,b", "HOST:PORT"),
        (",".join(["a"] * (CLIENT_ADDRESSES_MAX + 1)), "at most"),
        ("a:1,wss://b:1", "some addresses are encrypted"),
    ],
)
def test_what_is_no_list_of_addresses(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_addresses(text)


def test_it_is_written_as_a_url() -> None:
    assert str(Address("::1", 5)) == "ws://[::1]:5/v1/stream"
    assert Address("::1", 5).authority == "[::1]:5"
