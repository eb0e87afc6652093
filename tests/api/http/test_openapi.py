"""The OpenAPI document is made from the tables, and is the one in docs/."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from querator.api.http.endpoints import ENDPOINTS, Endpoint
from querator.api.http.json_codec import DecodeError, decode_json
from querator.api.http.messages import QueueProduceItem
from querator.api.http.openapi import document, text

DOCUMENT = document()


def test_the_document_in_docs_is_current() -> None:
    """``python -m querator.api.http.openapi > docs/openapi.json`` writes it."""
    assert (Path(__file__).parents[3] / "docs" / "openapi.json").read_text() == text()


def test_every_endpoint_is_in_it() -> None:
    assert list(DOCUMENT["paths"]) == [endpoint.path for endpoint in ENDPOINTS]


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.path)
def test_every_example_is_a_request(endpoint: Endpoint) -> None:
    example = DOCUMENT["paths"][endpoint.path]["post"]["requestBody"]["content"]["application/json"][
        "example"
    ]
    assert decode_json(json.dumps(example).encode(), endpoint.request) != endpoint.request()
    assert set(example) <= set(schema_names(endpoint))


def schema_names(endpoint: Endpoint) -> dict[str, Any]:
    schemas = DOCUMENT["components"]["schemas"]
    properties: dict[str, Any] = schemas[f"{endpoint.request.__name__}Input"]["properties"]
    return properties


@given(st.text("Aa0+/_-=", max_size=9))
def test_bytes_are_documented_as_they_are_read(text: str) -> None:
    schema = DOCUMENT["components"]["schemas"]["QueueProduceItemInput"]["properties"]["bytes"]
    pattern = schema["anyOf"][0]["pattern"]
    body = json.dumps({"bytes": text}).encode()
    if re.fullmatch(pattern, text):
        decode_json(body, QueueProduceItem)
    else:
        with pytest.raises(DecodeError):
            decode_json(body, QueueProduceItem)


def references(node: Any) -> list[str]:
    if isinstance(node, dict):
        found = [node["$ref"]] if "$ref" in node else []
        return found + [name for value in node.values() for name in references(value)]
    if isinstance(node, list):
        return [name for value in node for name in references(value)]
    return []


def test_everything_it_refers_to_is_there() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    for reference in references(DOCUMENT):
        assert reference.removeprefix("#/components/schemas/") in schemas


@pytest.mark.parametrize("name", sorted(DOCUMENT["components"]["schemas"]))
def test_messages_are_closed(name: str) -> None:
    """Unknown fields are refused, in both directions."""
    assert DOCUMENT["components"]["schemas"][name]["additionalProperties"] is False


def test_it_is_json() -> None:
    assert json.loads(text()) == DOCUMENT
