"""Every check of every call, in its order, with its exact text (CONTRACT.md 3).

Each ladder begins with a request in which everything is wrong. A step names the refusal that is due,
then what to put right; so a check that runs too early or too late shows in the step before or after it.
"""

from typing import Any

import attrs
import pytest

from querator.api.http import checks
from querator.api.http.door import HttpSettings
from querator.api.http.durations import parse_duration
from querator.core import limits
from tests.api.http.client import Client, open_client

LONG = "é" * 300
"""300 characters, 600 bytes: lengths are of bytes."""
UNKNOWN_ID = "3Ouil37b2JWNblSVrmOhXf7eM3V"
REQUEST_TIMEOUT_FORMAT = "expected format: 900ms, 5m or 15m"
REQUIRED = "request timeout is required; '5m' is recommended, 15m is the maximum"
TOO_LONG = "request timeout is invalid; maximum timeout is '15m' but '{}' was requested"
TOO_SHORT = "request timeout is invalid; minimum timeout is '10ms' but '{}' was requested"

NO_QUEUE_NAME = "queue name is invalid; queue name cannot be empty"


def common_lookup(step: str = "queue_name") -> "list[Step]":
    return [
        Step(400, NO_QUEUE_NAME, {step: " \t"}),
        Step(400, NO_QUEUE_NAME, {step: "a~b"}),
        Step(400, "queue name is invalid; 'a~b' cannot contain '~' character", {step: "a b"}),
        Step(400, "queue does not exist; no such queue named 'a b'", {step: "nope"}),
        Step(400, "queue does not exist; no such queue named 'nope'", {step: "q"}),
    ]


@attrs.frozen
class Step:
    code: int
    text: str
    fix: dict[str, Any]


@attrs.frozen
class Ladder:
    path: str
    start: dict[str, Any]
    steps: list[Step]
    final: tuple[int, str] | None = None
    """What the last, well-formed request gets; ``None``: success."""


def timeouts(start_fix: dict[str, Any]) -> list[Step]:
    return [
        Step(
            400,
            f'request timeout is invalid; time: invalid duration "foo" - {REQUEST_TIMEOUT_FORMAT}',
            start_fix,
        ),
    ]


NAME_LADDER = [
    Step(400, "queue name is invalid; cannot be greater than '512' characters", {"queue_name": " "}),
    Step(400, NO_QUEUE_NAME, {"queue_name": "invalid queue~name"}),
    Step(400, "queue name is invalid; 'invalid queue~name' cannot contain whitespace", {"queue_name": "a~b"}),
    Step(400, "queue name is invalid; 'a~b' cannot contain '~' character", {"queue_name": "made"}),
]

NAMESPACE_TEXTS = [
    Step(400, "namespace name is invalid; cannot be greater than '256' characters", {"namespace": " "}),
    Step(400, "namespace name is invalid; cannot be empty", {"namespace": "a b"}),
    Step(400, "namespace name is invalid; 'a b' cannot contain whitespace", {"namespace": "a~:"}),
    Step(400, "namespace name is invalid; 'a~:' cannot contain '~' character", {"namespace": "a:"}),
]

TIMEOUT_TEXTS = [
    Step(400, "lease timeout is invalid; cannot be greater than '15' characters", {"lease_timeout": "x"}),
    Step(400, "expire timeout is invalid; cannot be greater than '15' characters", {"expire_timeout": "1"}),
    Step(
        400,
        'expire timeout is invalid; time: missing unit in duration "1" - expected format: 60m, 2h or 24h',
        {"expire_timeout": ""},
    ),
    Step(
        400,
        'lease timeout is invalid; time: invalid duration "x" - expected format: 8m, 15m or 1h',
        {"lease_timeout": ""},
    ),
]

DEAD_QUEUE_TEXTS = [
    Step(400, "dead queue is invalid; cannot be greater than '500' characters", {"dead_queue": "a b"}),
    Step(400, "dead queue is invalid; 'a b' cannot contain whitespace", {"dead_queue": "a~"}),
    Step(400, "dead queue is invalid; 'a~' cannot contain '~' character", {"dead_queue": "made"}),
    Step(400, "dead_queue cannot reference itself", {"dead_queue": "nope"}),
    Step(
        400, "dead_queue does not exist; 'nope' was not found, create it first", {"dead_queue": "with-dead"}
    ),
    Step(
        400,
        "dead_queue is invalid; 'with-dead' already has its own dead_queue configured",
        {"dead_queue": "q"},
    ),
]

REST_TEXTS = [
    Step(
        400,
        "reference field is invalid; cannot be greater than '2000' characters",
        {"reference": "r" * 2_000},
    ),
    Step(400, "max attempts is invalid; cannot be greater than 65536", {"max_attempts": -1}),
    Step(400, "max attempts is invalid; cannot be negative number", {"max_attempts": 65_536}),
]

LADDERS = [
    Ladder(
        "queue.produce",
        {"request_timeout": "foo", "items": []},
        [
            *common_lookup(),
            *timeouts({"request_timeout": "0ms"}),
            Step(400, REQUIRED, {"request_timeout": "16m"}),
            Step(400, TOO_LONG.format("16m0s"), {"request_timeout": "15m"}),
            Step(400, TOO_LONG.format("15m0s"), {"request_timeout": "10ms"}),
            Step(400, TOO_SHORT.format("10ms"), {"request_timeout": "-1m"}),
            Step(400, TOO_SHORT.format("-1m0s"), {"request_timeout": "11ms"}),
            Step(400, "items cannot be empty; at least one item is required", {"items": [{}] * 11}),
            Step(400, "items is invalid; max_produce_batch_size is 10 but received 11", {"items": [{}] * 10}),
        ],
    ),
    Ladder(
        "queue.lease",
        {"request_timeout": "1x", "client_id": " ", "batch_size": 0},
        [
            *common_lookup(),
            Step(
                400,
                'request timeout is invalid; time: unknown unit "x" in duration "1x" - '
                f"{REQUEST_TIMEOUT_FORMAT}",
                {"request_timeout": ""},
            ),
            Step(400, "invalid client id; cannot be empty", {"client_id": "c"}),
            Step(400, "invalid batch size; must be greater than zero", {"batch_size": -1}),
            Step(400, "invalid batch size; must be greater than zero", {"batch_size": 21}),
            Step(
                400,
                "invalid batch size; max_lease_batch_size is 20, but 21 was requested",
                {"batch_size": 20},
            ),
            Step(400, REQUIRED, {"request_timeout": "15m1s"}),
            Step(400, TOO_LONG.format("15m1s"), {"request_timeout": "10ms"}),
            Step(400, TOO_SHORT.format("10ms"), {"request_timeout": "15m"}),
        ],
        (454, "request timeout; no items are in the queue, try again"),
    ),
    Ladder(
        "queue.complete",
        {"request_timeout": "foo", "partition": 2},
        [
            *common_lookup(),
            Step(400, "partition is invalid; '2' is not a valid partition", {"partition": -1}),
            Step(400, "partition is invalid; '-1' is not a valid partition", {"partition": 1}),
            *timeouts({"request_timeout": "16m"}),
            Step(400, "ids is invalid; list of ids cannot be empty", {"ids": ["x"] * 31}),
            Step(400, "ids is invalid; max_complete_batch_size is 30 but received 31", {"ids": ["bad-id"]}),
            Step(400, TOO_LONG.format("16m0s"), {"request_timeout": "0ms"}),
            Step(400, REQUIRED, {"request_timeout": "15m"}),
            Step(
                400,
                "invalid storage id; 'bad-id': Valid encoded KSUIDs are 27 characters",
                {"ids": ["z" * 27]},
            ),
            Step(
                400,
                f"invalid storage id; '{'z' * 27}': Valid encoded KSUIDs are bounded by "
                "000000000000000000000000000 and aWgEPTl1tmebfsQzFP4bxwgy80V",
                {"ids": [UNKNOWN_ID, "bad-id"]},
            ),
        ],
        (400, f"invalid storage id; '{UNKNOWN_ID}' does not exist"),
    ),
    Ladder(
        "queue.retry",
        {"partition": 2},
        [
            *common_lookup(),
            Step(400, "partition is invalid; '2' is not a valid partition", {"partition": 0}),
            Step(400, "items is invalid; list of items cannot be empty", {"items": [{"id": "x"}] * 31}),
            Step(
                400,
                "items is invalid; max_complete_batch_size is 30 but received 31",
                {"items": [{"id": "bad-id"}]},
            ),
            Step(
                400,
                "invalid storage id; 'bad-id': Valid encoded KSUIDs are 27 characters",
                {"items": [{"id": UNKNOWN_ID}]},
            ),
        ],
        (400, f"invalid storage id; '{UNKNOWN_ID}' does not exist"),
    ),
    Ladder(
        "queue.clear",
        {},
        [
            *common_lookup(),
            Step(
                400, "invalid clear request; one of 'queue', 'scheduled' must be true", {"destructive": True}
            ),
            Step(400, "invalid clear request; one of 'queue', 'scheduled' must be true", {"queue": True}),
        ],
    ),
    Ladder("queue.reload", {}, common_lookup()),
    Ladder("queue.stats", {}, common_lookup()),
    Ladder("queues.info", {}, common_lookup()),
    Ladder(
        "queues.create",
        {
            "queue_name": LONG,
            "lease_timeout": "1" * 16,
            "expire_timeout": "1" * 16,
            "namespace": LONG,
            "dead_queue": LONG,
            "reference": "r" * 2_001,
            "max_attempts": 65_537,
        },
        [
            *NAME_LADDER,
            *TIMEOUT_TEXTS,
            *NAMESPACE_TEXTS,
            Step(400, "namespace name is invalid; 'a:' cannot contain ':' character", {"namespace": "nope"}),
            Step(
                453,
                "namespace does not exist; 'nope' was not found",
                {"namespace": "space", "queue_name": "q"},
            ),
            Step(400, "invalid queue; 'q' already exists", {"queue_name": "made"}),
            *DEAD_QUEUE_TEXTS,
            *REST_TEXTS,
            Step(400, "partitions is invalid; cannot be less than 1", {"requested_partitions": 3}),
            Step(400, "lease timeout is invalid; cannot be empty", {"lease_timeout": "61m"}),
            Step(400, "expire timeout is invalid; cannot be empty", {"expire_timeout": "60m"}),
            Step(
                400,
                "lease timeout is too long; 1h1m0s cannot be greater than the expire timeout 1h0m0s",
                {"lease_timeout": "60m"},
            ),
        ],
    ),
    Ladder(
        "queues.update",
        {
            "queue_name": LONG,
            "lease_timeout": "1" * 16,
            "expire_timeout": "1" * 16,
            "namespace": LONG,
            "dead_queue": LONG,
            "reference": "r" * 2_001,
            "max_attempts": 65_537,
            "requested_partitions": -1,
        },
        [
            *NAME_LADDER,
            *TIMEOUT_TEXTS,
            *NAMESPACE_TEXTS,
            Step(400, "namespace name is invalid; 'a:' cannot contain ':' character", {"namespace": "nope"}),
            Step(400, "queue does not exist; no such queue named 'made'", {"queue_name": "q2"}),
            *[
                attrs.evolve(step, fix={"dead_queue": "q2"} if step.fix["dead_queue"] == "made" else step.fix)
                for step in DEAD_QUEUE_TEXTS
            ],
            *REST_TEXTS,
            Step(
                400,
                "partitions is invalid; cannot be less than 1",
                {"requested_partitions": 0, "lease_timeout": "1h", "expire_timeout": "30m"},
            ),
            Step(
                400,
                "lease timeout is too long; 1h0m0s cannot be greater than the expire timeout 30m0s",
                {"lease_timeout": "", "expire_timeout": "59s"},
            ),
            Step(
                400,
                "lease timeout is too long; 1m0s cannot be greater than the expire timeout 59s",
                {"expire_timeout": "60s"},
            ),
        ],
    ),
    Ladder(
        "queues.list",
        {"limit": -1, "pivot": "a~"},
        [
            Step(400, "limit is invalid; limit cannot be negative", {"limit": 65_537}),
            Step(400, "limit is invalid; cannot be greater than 65536", {"limit": 65_536}),
            Step(400, "pivot is invalid; 'a~' cannot contain '~' character", {"pivot": "a"}),
        ],
    ),
    Ladder(
        "queues.delete",
        {"queue_name": LONG},
        [
            *NAME_LADDER,
            Step(400, "queue does not exist; no such queue named 'made'", {"queue_name": "q2"}),
        ],
    ),
    *[
        Ladder(
            f"storage/{path}",
            {"partition": 2, "pivot": "x"},
            [
                *common_lookup(),
                Step(400, "partition is invalid; '2' is not a valid partition", {"partition": 1}),
                Step(
                    400,
                    "invalid storage id; 'x': Valid encoded KSUIDs are 27 characters",
                    {"pivot": UNKNOWN_ID},
                ),
            ],
        )
        for path in ("items.list", "scheduled.list")
    ],
    Ladder(
        "storage/items.import",
        {"partition": 2},
        [
            *common_lookup(),
            Step(400, "partition is invalid; '2' is not a valid partition", {"partition": 0}),
            Step(400, "items is invalid; cannot be empty", {"items": [{}]}),
        ],
    ),
    Ladder(
        "storage/items.delete",
        {"partition": 2},
        [
            *common_lookup(),
            Step(400, "partition is invalid; '2' is not a valid partition", {"partition": 0}),
            Step(400, "ids is invalid; cannot be empty", {"ids": [UNKNOWN_ID, "invalid-id"]}),
            Step(
                400,
                "invalid storage id; 'invalid-id': Valid encoded KSUIDs are 27 characters",
                {"ids": [UNKNOWN_ID]},
            ),
        ],
    ),
    *[
        Ladder(
            f"namespaces.{verb}",
            {"name": LONG, "api_key_tag": "a" * 17},
            [
                *[
                    attrs.evolve(
                        step, fix={"name": step.fix["namespace"]} if "namespace" in step.fix else step.fix
                    )
                    for step in NAMESPACE_TEXTS
                ],
                Step(400, "namespace name is invalid; 'a:' cannot contain ':' character", {"name": "_mine"}),
                Step(
                    400,
                    "api_key_tag is invalid; cannot be greater than 16 characters",
                    {"api_key_tag": "a-b"},
                ),
                Step(
                    400, "api_key_tag is invalid; must be lowercase alphanumeric only", {"api_key_tag": "a1"}
                ),
                Step(
                    400,
                    "namespace name is reserved; '_mine' names starting with '_' are reserved",
                    {"name": "space" if verb == "create" else "nope"},
                ),
                Step(400, "namespace already exists; 'space' already exists", {"name": "more"})
                if verb == "create"
                else Step(453, "namespace does not exist; 'nope' was not found", {"name": "space"}),
            ],
        )
        for verb in ("create", "update")
    ],
    Ladder(
        "namespaces.delete",
        {"name": LONG},
        [
            *[
                attrs.evolve(
                    step, fix={"name": step.fix["namespace"]} if "namespace" in step.fix else step.fix
                )
                for step in NAMESPACE_TEXTS
            ],
            Step(400, "namespace name is invalid; 'a:' cannot contain ':' character", {"name": "_system"}),
            Step(
                400,
                "namespace name is reserved; '_system' names starting with '_' are reserved",
                {"name": "nope"},
            ),
            Step(453, "namespace does not exist; 'nope' was not found", {"name": "empty"}),
        ],
    ),
    Ladder(
        "users.create",
        {"username": "é" * 65, "email": "e" * 257, "external_id": "x" * 257},
        [
            Step(400, "username is invalid; cannot be greater than '128' characters", {"username": " "}),
            Step(400, "username is invalid; cannot be empty", {"username": "taken"}),
            Step(400, "email is invalid; cannot be greater than '256' characters", {"email": "e" * 256}),
            Step(
                400,
                "external_id is invalid; cannot be greater than '256' characters",
                {"external_id": "x" * 256},
            ),
            Step(400, "username is already taken; 'taken' is already taken", {"username": "free"}),
        ],
    ),
    Ladder(
        "users.delete",
        {"id": "nobody"},
        [Step(453, "user does not exist; 'nobody' was not found", {"id": "USER"})],
    ),
    Ladder(
        "apikeys.create",
        {"name": "n" * 129, "key_tag": "t" * 17},
        [
            Step(400, "user_id is invalid; cannot be empty", {"user_id": "nobody"}),
            Step(400, "name is invalid; cannot be greater than '128' characters", {"name": "n" * 128}),
            Step(400, "key_tag is invalid; cannot be greater than 16 characters", {"key_tag": "T"}),
            Step(400, "key_tag is invalid; must be lowercase alphanumeric only", {"key_tag": ""}),
            Step(453, "user does not exist; 'nobody' was not found", {"user_id": "USER"}),
        ],
    ),
    Ladder(
        "apikeys.delete",
        {"id": "nope"},
        [Step(401, "api key does not exist", {"id": "KEY"})],
    ),
    Ladder(
        "roles.create",
        {"permissions": ["fly"]},
        [
            Step(400, "namespace is invalid; cannot be empty", {"namespace": "nope"}),
            Step(400, "name is invalid; cannot be empty", {"name": "n" * 129}),
            Step(400, "name is invalid; cannot be greater than '128' characters", {"name": "a:b"}),
            Step(400, "name is invalid; 'a:b' cannot contain ':' character", {"name": " "}),
            Step(
                400,
                "permission is invalid; 'fly' is not a recognized permission",
                {"permissions": ["queue.list"]},
            ),
            Step(400, "role name is invalid; cannot be empty", {"name": "Admin"}),
            Step(400, "cannot modify or delete standard role; 'Admin' is a standard role", {"name": "bound"}),
            Step(453, "namespace does not exist; 'nope' was not found", {"namespace": "space"}),
            Step(400, "role already exists; 'space:bound' already exists", {"name": "new"}),
        ],
    ),
    Ladder(
        "roles.update",
        {"permissions": ["fly"]},
        [
            Step(400, "namespace is invalid; cannot be empty", {"namespace": "space"}),
            Step(400, "name is invalid; cannot be empty", {"name": "nope"}),
            Step(400, "permission is invalid; 'fly' is not a recognized permission", {"permissions": []}),
            Step(
                453,
                "role does not exist; 'space:nope' was not found",
                {"namespace": "_system", "name": "Admin"},
            ),
            Step(
                400,
                "cannot modify or delete standard role; 'Admin' is a standard role",
                {"namespace": "space", "name": "bound"},
            ),
        ],
    ),
    Ladder(
        "roles.delete",
        {"name": "nope"},
        [
            Step(453, "role does not exist; '_system:nope' was not found", {"name": "Admin"}),
            Step(
                400,
                "cannot modify or delete standard role; 'Admin' is a standard role",
                {"namespace": "space", "name": "bound"},
            ),
            Step(
                400,
                "role has active bindings; 'bound' has active bindings, delete bindings first",
                {"name": "unbound"},
            ),
        ],
    ),
    Ladder(
        "rolebindings.create",
        {},
        [
            Step(400, "namespace is invalid; cannot be empty", {"namespace": "space"}),
            Step(400, "role_name is invalid; cannot be empty", {"role_name": "nope"}),
            Step(400, "user_id is invalid; cannot be empty", {"user_id": "a:b"}),
            Step(400, "user_id is invalid; 'a:b' cannot contain ':' character", {"user_id": "nobody"}),
            Step(453, "role does not exist; 'space:nope' was not found", {"role_name": "bound"}),
            Step(453, "user does not exist; 'nobody' was not found", {"user_id": "USER"}),
            Step(
                400,
                "role binding already exists; binding for user 'USER' to role 'ROLE' in namespace 'space' "
                "already exists",
                {"role_name": "unbound"},
            ),
        ],
    ),
    Ladder(
        "rolebindings.delete",
        {"user_id": "a:b", "role_name": "nope"},
        [
            Step(400, "user_id is invalid; 'a:b' cannot contain ':' character", {"user_id": "nobody"}),
            Step(
                453,
                "role does not exist; '_system:nope' was not found",
                {"namespace": "space", "role_name": "bound"},
            ),
            Step(453, "role binding does not exist; 'space:nobody:ROLE' was not found", {"user_id": "USER"}),
        ],
    ),
]


async def furnish(client: Client) -> dict[str, str]:
    """What the ladders presuppose; the ids that stand behind their capitals."""
    await client.ok("namespaces.create", name="space")
    await client.ok("namespaces.create", name="empty")
    await client.create("q", requested_partitions=2)
    await client.create("q2")
    await client.create("with-dead", dead_queue="q")
    user = (await client.ok("users.create", username="taken"))["id"]
    key = (await client.ok("apikeys.create", user_id=user))["id"]
    role = (await client.ok("roles.create", namespace="space", name="bound"))["id"]
    await client.ok("roles.create", namespace="space", name="unbound")
    await client.ok("rolebindings.create", namespace="space", role_name="bound", user_id=user)
    return {"USER": user, "KEY": key, "ROLE": role}


@pytest.mark.parametrize("ladder", LADDERS, ids=lambda ladder: ladder.path)
async def test_the_first_failing_check_wins(ladder: Ladder, autojump_clock: object) -> None:
    settings = HttpSettings(produce_items_max=10, lease_items_max=20, complete_items_max=30)
    async with open_client(auth=True, settings=settings) as client:
        ids = await furnish(client)
        request = dict(ladder.start)
        for step in ladder.steps:
            text = step.text
            for name, made in ids.items():
                text = text.replace(name, made)
            assert await client.fails(ladder.path, **request) == (step.code, text)
            request |= {name: ids.get(str(value), value) for name, value in step.fix.items()}
        if ladder.final is None:
            await client.ok(ladder.path, **request)
        else:
            assert await client.fails(ladder.path, **request) == ladder.final


async def test_a_namespace_that_is_used_is_not_deleted(autojump_clock: object) -> None:
    """Bindings are reported before roles, roles before queues."""
    async with open_client(auth=True) as client:
        ids = await furnish(client)
        await client.create("mine", namespace="space")
        text = "namespace has {0}; 'space' has {0}, delete {0} first"
        assert await client.fails("namespaces.delete", name="space") == (400, text.format("role bindings"))
        await client.ok("rolebindings.delete", namespace="space", role_name="bound", user_id=ids["USER"])
        assert await client.fails("namespaces.delete", name="space") == (400, text.format("roles"))
        await client.ok("roles.delete", namespace="space", name="bound")
        await client.ok("roles.delete", namespace="space", name="unbound")
        assert await client.fails("namespaces.delete", name="space") == (400, text.format("queues"))
        await client.ok("queues.delete", queue_name="mine")
        await client.ok("namespaces.delete", name="space")


async def test_a_service_that_stops_says_so_first(autojump_clock: object) -> None:
    async with open_client() as client:
        await client.create("q")
        client.door.is_stopping = True
        for path in ("queue.produce", "queue.lease", "queue.stats", "storage/items.list", "queues.info"):
            assert await client.fails(path, queue_name="q") == (453, "service is shutting down")
        assert await client.fails("queues.list") == (453, "service is shutting down")


async def test_more_partitions_than_there_may_be_are_refused(autojump_clock: object) -> None:
    async with open_client() as client:
        bound = limits.PARTITIONS_PER_QUEUE_MAX
        request = {"queue_name": "q", "lease_timeout": "1m", "expire_timeout": "1m"}
        code, text = await client.fails("queues.create", requested_partitions=bound + 1, **request)
        assert (code, text) == (400, f"partitions is invalid; cannot be greater than {bound}")


def test_durations_of_the_ladders_are_what_they_seem() -> None:
    assert parse_duration("15m1s") > parse_duration("15m")


@pytest.mark.parametrize(
    ("limit", "entries"),
    [(0, 1_000), (1, 1), (-1, 0), (checks.LIST_LIMIT_MAX, 100_000), (checks.LIST_LIMIT_MAX + 1, 100_000)],
)
def test_pages_have_a_bound(limit: int, entries: int) -> None:
    assert checks.list_limit(limit) == entries
