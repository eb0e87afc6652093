"""Where a server is, as people write it."""

import pytest

from querator.client import Address, parse_address


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


def test_it_is_written_as_a_url() -> None:
    assert str(Address("::1", 5)) == "ws://[::1]:5/v1/stream"
    assert Address("::1", 5).authority == "[::1]:5"
