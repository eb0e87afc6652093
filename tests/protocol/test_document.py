"""docs/PROTOCOL.md says what the code does: its examples are read, its tables are complete."""

import re
import typing
from pathlib import Path

import pytest

from querator.api.registry import ANNOUNCED_LIMITS
from querator.core.replies import Code
from querator.protocol import messages as wire
from querator.protocol.closing import CloseCode
from querator.protocol.codec import JSON, Fault

PAGE = (Path(__file__).parents[2] / "docs" / "PROTOCOL.md").read_text()
EXAMPLES = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
CLIENT = typing.get_args(wire.ClientMessage)
SERVER = typing.get_args(wire.ServerMessage)


def tag(kind: type[wire.Message]) -> str:
    return str(kind.__struct_config__.tag)


def read(example: str) -> list[object]:
    """The messages of an example: a client's, or else a server's."""
    messages = JSON.decode_client(example)
    if any(isinstance(message, Fault) for message in messages):
        return list(JSON.decode_server(example))
    return list(messages)


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_is_of_the_protocol(example: str) -> None:
    assert read(example)


def test_every_message_has_an_example() -> None:
    shown = {type(message) for example in EXAMPLES for message in read(example)}
    assert [tag(kind) for kind in (*CLIENT, *SERVER) if kind not in shown] == []


def test_every_field_is_described() -> None:
    missing = [
        f"{tag(kind)}.{field}"
        for kind in (*CLIENT, *SERVER, wire.Held)
        for field in kind.__struct_fields__
        if f"`{field}`" not in PAGE and f'"{field}"' not in PAGE
    ]
    assert missing == []


def test_every_code_is_described() -> None:
    assert [code for code in Code if f"`{code}`" not in PAGE] == []


def test_every_close_code_is_described() -> None:
    assert [code for code in CloseCode if f"| {code.value} |" not in PAGE] == []


def test_every_announced_limit_is_described() -> None:
    for name, value in ANNOUNCED_LIMITS.items():
        assert f"`{name}`" in PAGE
        assert f"{value:,}" in PAGE, name
