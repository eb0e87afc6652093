"""Calls over HTTP to a server in a process of its own."""

import http.client
import json
from typing import Any

from benchmarks.processes import Server

PATIENCE = 60
"""Seconds for what takes milliseconds on an idle machine."""
ADMIN = {"namespace": "_system", "role_name": "Admin"}


def ask(server: Server, method: str, path: str, body: bytes = b"", key: str = "") -> tuple[int, Any]:
    """Status and document."""
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    connection = http.client.HTTPConnection(server.address, timeout=PATIENCE)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, json.load(answer)
    finally:
        connection.close()


def call(server: Server, path: str, *, key: str = "", **fields: Any) -> Any:
    status, document = ask(server, "POST", f"/v1/{path}", json.dumps(fields).encode(), key)
    assert status == 200, document
    return document


def with_a_key(server: Server) -> str:
    """An administrator's; the door of the first start is closed."""
    user = call(server, "users.create", username="root")["id"]
    call(server, "rolebindings.create", user_id=user, **ADMIN)
    key: str = call(server, "apikeys.create", user_id=user)["key"]
    call(server, "rolebindings.delete", user_id="anonymous", **ADMIN)
    assert ask(server, "POST", "/v1/users.list", b"{}")[0] == 403
    return key
