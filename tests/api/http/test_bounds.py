"""Names of the catalog's things: as long as the contract says, and a byte more is refused."""

from typing import Any

import pytest

from querator.core import limits
from tests.api.http.client import open_client

BOUNDS: list[tuple[str, str, int, dict[str, Any]]] = [
    ("namespaces.create", "name", limits.NAMESPACE_NAME_BYTES_MAX, {}),
    ("users.create", "username", limits.USERNAME_BYTES_MAX, {}),
    ("users.create", "email", limits.EMAIL_BYTES_MAX, {"username": "u"}),
    ("users.create", "external_id", limits.EXTERNAL_ID_BYTES_MAX, {"username": "u"}),
    ("apikeys.create", "name", limits.API_KEY_NAME_BYTES_MAX, {"user_id": "made"}),
    ("roles.create", "name", limits.ROLE_NAME_BYTES_MAX, {"namespace": "_system"}),
    ("queues.create", "queue_name", limits.QUEUE_NAME_BYTES_MAX, {}),
    ("queues.create", "dead_queue", limits.DEAD_QUEUE_NAME_BYTES_MAX, {"queue_name": "q"}),
]


@pytest.mark.parametrize(("call", "field", "most", "fields"), BOUNDS, ids=[f"{b[0]}-{b[1]}" for b in BOUNDS])
async def test_a_name_is_so_long(
    call: str, field: str, most: int, fields: dict[str, Any], autojump_clock: object
) -> None:
    async with open_client(auth=True) as client:
        if "user_id" in fields:
            made = await client.ok("users.create", username="other")
            fields = {**fields, "user_id": made["id"]}
        if call == "queues.create":
            fields = {"requested_partitions": 1, "lease_timeout": "1m", "expire_timeout": "1h", **fields}
        if field == "dead_queue":
            await client.create("d" * most)
        status, text = await client.fails(call, **fields, **{field: "d" * (most + 1)})
        assert (status, f"'{most}'" in text) == (400, True), text
        await client.ok(call, **fields, **{field: "d" * most})
