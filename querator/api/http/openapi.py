"""The OpenAPI document of the HTTP API, made from the table of endpoints and the message classes.

``python -m querator.api.http.openapi > docs/openapi.json`` after a change of either.
"""

import json
import sys
from typing import Any, Final

from querator.api.http.endpoints import ENDPOINTS, PRODUCE_BODY, SMALL_BODY, Endpoint, size_text
from querator.api.http.examples import EXAMPLES
from querator.api.http.messages import INT32_MAX, INT32_MIN, Message, Reply
from querator.api.http.refusals import CODE_TEXTS, OK
from querator.api.http.schema import FieldSchema, schema_of

VERSION: Final = "1"
PRODUCE_BODY_DEFAULT: Final = 5_000_000

_NUMBER: Final = r"^-?(0|[1-9][0-9]{0,8})(\.0{1,30})?$"
_STANDARD: Final = "([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}(==)?|[A-Za-z0-9+/]{3}=?)?"
_URL_SAFE: Final = _STANDARD.replace("+/", "_-")
_BASE64: Final = f"^({_STANDARD}|{_URL_SAFE})$"
"""What an int32 in a string, and base64, should look like; a few more spellings of a number are read."""
_DESCRIPTION: Final = """\
The HTTP API of Querator, as clients of the Go server know it, and extensions under `/v1/x/`.

Every call is a POST with a message as its body, in JSON or protobuf (`Content-Type`); the answer is in \
JSON unless `Accept` asks for protobuf. What fails answers a `Reply` whose `code` is the HTTP status. \
Fields of zero are left out of answers; durations are Go's (`90s`, `1m30s`); *lease* is this API's word for \
reservation.
"""
_STATUS_TEXTS: Final = {
    400: "The request or what it names is at fault",
    401: "The key is not taken",
    403: "Permission is missing",
    453: "Not now, or what it names is not there",
    454: "Try again",
    455: "The body is not the message",
    500: "A fault of the server",
}


def document() -> dict[str, Any]:
    """The whole document."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "Querator", "version": VERSION, "description": _DESCRIPTION},
        "paths": {endpoint.path: {"post": _operation(endpoint)} for endpoint in ENDPOINTS},
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}, {}],
    }


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    bound = endpoint.body_bytes_max
    size = PRODUCE_BODY_DEFAULT if bound == PRODUCE_BODY else bound
    beside = " beside the queue's name" if size == SMALL_BODY else ""
    responses = {str(OK): _response("Done", endpoint.reply)}
    for status, text in _STATUS_TEXTS.items():
        responses[str(status)] = _response(f"{CODE_TEXTS[status]}: {text}", Reply)
    needs = f"Needs the permission `{endpoint.permission}`."
    return {
        "operationId": endpoint.path.removeprefix("/v1/").replace("/", "."),
        "tags": [endpoint.path.removeprefix("/v1/").split(".")[0]],
        "description": f"{needs} The body has at most {size_text(size)}{beside}.",
        "requestBody": {"required": True, "content": _request(endpoint)},
        "responses": responses,
    }


def _request(endpoint: Endpoint) -> dict[str, Any]:
    content = _content(f"{endpoint.request.__name__}Input")
    content["application/json"]["example"] = EXAMPLES[endpoint.path]
    return content


def _response(description: str, message: type[Message]) -> dict[str, Any]:
    return {"description": description, "content": _content(message.__name__)}


def _content(name: str) -> dict[str, Any]:
    return {
        "application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}},
        "application/protobuf": {"schema": {"type": "string", "format": "binary"}},
    }


def _schemas() -> dict[str, Any]:
    schemas: dict[str, Any] = {}
    _add(schemas, Reply, is_input=False)
    for endpoint in ENDPOINTS:
        _add(schemas, endpoint.request, is_input=True)
        _add(schemas, endpoint.reply, is_input=False)
    return dict(sorted(schemas.items()))


def _add(schemas: dict[str, Any], message: type[Message], *, is_input: bool) -> None:
    """An answer has one form; a request may be written in several ways, so it has a schema of its own.

    The camelCase spellings that some fields may have as well are left out: nobody should begin with them.
    """
    name = message.__name__ + ("Input" if is_input else "")
    if name in schemas:
        return
    properties: dict[str, Any] = {}
    for field in schema_of(message):
        properties[field.json_name] = _field(field, is_input=is_input)
        if field.message is not None:
            _add(schemas, field.message, is_input=is_input)
    schemas[name] = {"type": "object", "properties": properties, "additionalProperties": False}


def _field(field: FieldSchema, *, is_input: bool) -> dict[str, Any]:
    schema = _value(field, is_input=is_input)
    if field.is_repeated:
        schema = {"type": "array", "items": schema}
    return {"anyOf": [schema, {"type": "null"}]} if is_input else schema


def _value(field: FieldSchema, *, is_input: bool) -> dict[str, Any]:
    if field.message is not None:
        return {"$ref": f"#/components/schemas/{field.message.__name__}{'Input' if is_input else ''}"}
    match field.kind:
        case "int32":
            number: dict[str, Any] = {
                "type": "integer",
                "format": "int32",
                "minimum": INT32_MIN,
                "maximum": INT32_MAX,
            }
            return {"anyOf": [number, {"type": "string", "pattern": _NUMBER}]} if is_input else number
        case "int64":
            return {"type": "integer", "format": "int64"}
        case "bytes":
            return {"type": "string", "contentEncoding": "base64", "pattern": _BASE64}
        case "timestamp":
            return {"type": "string", "format": "date-time"}
        case "map":
            return {"type": "object", "additionalProperties": {"type": "string"}}
        case "bool":
            return {"type": "boolean"}
        case _:
            return {"type": "string"}


def text() -> str:
    """As the file has it."""
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
