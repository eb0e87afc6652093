"""The catalog's promises: a fold of its documents, ids never given twice, doors that stay closed."""

import itertools
from typing import Any, get_args

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from querator.core import limits
from querator.core.catalog import (
    ANONYMOUS,
    SYSTEM_NAMESPACE,
    Catalog,
    CatalogCommand,
    Changed,
    KeyFault,
    Principal,
    authenticate,
    decide,
    decode,
    decode_catalog,
    encode,
    encode_catalog,
    evolve,
    is_allowed,
    is_current,
    policy_of,
    policy_of_partition,
)
from querator.core.catalog.commands import (
    Bootstrap,
    CreateApiKey,
    CreateBinding,
    CreateNamespace,
    CreateQueue,
    CreateRole,
    CreateUser,
    DeleteApiKey,
    DeleteBinding,
    DeleteNamespace,
    DeleteQueue,
    DeleteRole,
    DeleteUser,
    UpdateNamespace,
    UpdateQueue,
    UpdateRole,
)
from querator.core.catalog.documents import TAGS, Change, Document, RoleChanged
from querator.core.catalog.values import (
    ADMIN,
    ANONYMOUS_USER,
    NAMESPACE_OWNER,
    PERMISSIONS,
    STANDARD_ROLES,
)
from querator.core.ids import Duration, Instant, PartitionId, QueueName
from querator.core.replies import Code, Rejected

NOW = Instant(1_800_000_000_000_000)


class Owner:
    """Decides and folds as the owner of partition 0 does, and keeps the log."""

    def __init__(self, *, auth: bool = True) -> None:
        self.catalog = Catalog()
        self.log: list[bytes] = []
        self.now = NOW
        self._draws = itertools.count(1)
        self.do(Bootstrap(auth))

    def ask(self, command: CatalogCommand) -> Changed | Rejected:
        self.now = Instant(self.now + 1)
        entropy = next(self._draws).to_bytes(32, "little") * 2
        outcome = decide(self.catalog, command, now=self.now, entropy=entropy, author="tester")
        if isinstance(outcome, Rejected):
            return outcome
        for document in outcome.documents:
            evolve(self.catalog, document)
            self.log.append(encode(document))
        return outcome.reply

    def do(self, command: CatalogCommand) -> Changed:
        reply = self.ask(command)
        assert isinstance(reply, Changed), reply
        return reply

    def refuse(self, command: CatalogCommand) -> Code:
        reply = self.ask(command)
        assert isinstance(reply, Rejected), reply
        return reply.code

    def replayed(self) -> Catalog:
        catalog = Catalog()
        for document in self.log:
            evolve(catalog, decode(document))
        return catalog


def queue(name: str, **settings: Any) -> CreateQueue:
    return CreateQueue(name=QueueName(name), **settings)


NAMES = st.sampled_from(["a", "b", "c", "d"])
ROLES = st.sampled_from(["r1", "r2", ADMIN])
SPACES = st.sampled_from([SYSTEM_NAMESPACE, "n1", "n2"])


@st.composite
def commands(draw: st.DrawFn) -> CatalogCommand:
    name, other, space, role = draw(NAMES), draw(NAMES), draw(SPACES), draw(ROLES)
    permissions = tuple(draw(st.lists(st.sampled_from(PERMISSIONS), max_size=3, unique=True)))
    number = draw(st.integers(1, 4))
    choices: list[CatalogCommand] = [
        queue(
            name,
            namespace=space,
            partitions=number,
            dead_queue=draw(st.sampled_from(["", other])),
        ),
        UpdateQueue(
            name=QueueName(name),
            attempts_max=number,
            dead_queue=draw(st.sampled_from([None, "", other])),
            paused=draw(st.sampled_from([None, True, False])),
        ),
        DeleteQueue(QueueName(name)),
        CreateNamespace(name=space, api_key_tag=name),
        UpdateNamespace(name=space, description=other),
        DeleteNamespace(space),
        CreateUser(username=name),
        DeleteUser(f"#{number}"),
        CreateApiKey(user_id=f"#{number}", scope=space),
        DeleteApiKey(f"#{number}"),
        CreateRole(namespace=space, name=role, permissions=permissions),
        UpdateRole(namespace=space, name=role, permissions=permissions),
        DeleteRole(namespace=space, name=role),
        CreateBinding(namespace=space, role_name=role, user_id=f"#{number}"),
        DeleteBinding(namespace=space, role_name=role, user_id=f"#{number}"),
        Bootstrap(auth=True),
    ]
    return draw(st.sampled_from(choices))


def resolve(owner: Owner, command: CatalogCommand) -> CatalogCommand:
    """``#3`` stands for the third user or key there is."""
    table = owner.catalog.keys if isinstance(command, DeleteApiKey) else owner.catalog.users
    for field in ("id", "user_id"):
        wanted = getattr(command, field, "")
        if wanted.startswith("#"):
            ids = list(table)
            index = int(wanted[1:])
            settings_: dict[str, Any] = {field: ids[index % len(ids)] if ids else "nobody"}
            return attrs.evolve(command, **settings_)
    return command


@settings(max_examples=60, deadline=None)
@given(st.lists(commands(), max_size=40))
def test_the_catalog_is_the_fold_of_its_log(wanted: list[CatalogCommand]) -> None:
    """Live state, replay of the log and a snapshot are equal, and no partition id is given twice."""
    owner = Owner()
    given_ids: set[int] = set()
    for command in wanted:
        known = set(owner.catalog.queue_of_partition)
        owner.ask(resolve(owner, command))
        fresh = set(owner.catalog.queue_of_partition) - known
        assert not fresh & given_ids
        given_ids |= fresh
    assert owner.replayed() == owner.catalog
    assert decode_catalog(encode_catalog(owner.catalog)) == owner.catalog
    assert 0 not in given_ids


@settings(max_examples=60, deadline=None)
@given(st.lists(commands(), max_size=30))
def test_a_policy_that_changes_gets_a_greater_version(
    wanted: list[CatalogCommand],
) -> None:
    """Whatever changes what a partition decides by raises the version; partitions can compare versions."""
    owner = Owner()
    for command in wanted:
        before = {
            p: policy_of_partition(PartitionId(p), owner.catalog)
            for p in range(1, owner.catalog.next_partition)
        }
        owner.ask(resolve(owner, command))
        for partition, policy in before.items():
            after = policy_of_partition(PartitionId(partition), owner.catalog)
            assert policy is not None
            assert after is not None
            if attrs.evolve(after, version=0) != attrs.evolve(policy, version=0):
                assert after.version > policy.version


def test_every_kind_of_change_has_a_durable_name() -> None:
    assert set(TAGS) == set(get_args(Change))


def test_partitions_are_spread_over_the_stores() -> None:
    owner = Owner()
    owner.do(queue("q", partitions=3, stores=("one", "two")))
    assert [(p.id, p.store) for p in owner.catalog.queues["q"].partitions] == [
        (1, "one"),
        (2, "two"),
        (3, "one"),
    ]


def test_ids_of_a_deleted_queue_are_not_given_again() -> None:
    owner = Owner()
    owner.do(queue("q", partitions=2))
    owner.do(DeleteQueue(QueueName("q")))
    owner.do(queue("q"))
    assert [p.id for p in owner.catalog.queues["q"].partitions] == [3]
    retired = policy_of_partition(PartitionId(1), owner.catalog)
    assert retired is not None
    assert retired.deleted
    assert policy_of_partition(PartitionId(4), owner.catalog) is None
    assert policy_of_partition(PartitionId(0), owner.catalog) is None


def test_dead_items_go_to_the_first_partition_of_the_dead_queue() -> None:
    owner = Owner()
    owner.do(queue("dead", partitions=2))
    owner.do(queue("q", dead_queue="dead"))
    assert policy_of(owner.catalog.queues["q"], owner.catalog).dead_target == 1
    owner.do(DeleteQueue(QueueName("dead")))
    assert policy_of(owner.catalog.queues["q"], owner.catalog).dead_target is None


def test_the_rules_of_dead_queues() -> None:
    owner = Owner()
    owner.do(queue("dead"))
    owner.do(queue("q", dead_queue="dead"))
    assert owner.refuse(queue("own", dead_queue="own")) == Code.INVALID
    assert owner.refuse(queue("x", dead_queue="nowhere")) == Code.UNKNOWN_QUEUE
    assert owner.refuse(queue("x", dead_queue="q")) == Code.INVALID


def test_an_update_is_always_later_than_what_it_updates() -> None:
    owner = Owner()
    owner.do(queue("q"))
    created = owner.catalog.queues["q"]
    outcome = decide(
        owner.catalog,
        UpdateQueue(name=QueueName("q")),
        now=created.created_at,
        entropy=bytes(64),
    )
    assert not isinstance(outcome, Rejected)
    evolve(owner.catalog, outcome.documents[0])
    assert owner.catalog.queues["q"].updated_at > created.created_at


@pytest.mark.parametrize(
    ("settings_", "field"),
    [
        ({"partitions": 0}, "partitions"),
        ({"partitions": limits.PARTITIONS_PER_QUEUE_MAX + 1}, "partitions"),
        ({"reservation_timeout": Duration(0)}, "reservation_timeout"),
        (
            {"reservation_timeout": Duration(limits.QUEUE_TIMEOUT_MAX + 1)},
            "reservation_timeout",
        ),
        ({"expire_timeout": Duration(-1)}, "expire_timeout"),
        ({"attempts_max": limits.ATTEMPTS_MAX_MAX + 1}, "attempts_max"),
        ({"reference": "x" * (limits.REFERENCE_BYTES_MAX + 1)}, "reference"),
        ({"dedupe_keys_max": limits.DEDUPE_KEYS_MAX + 1}, "dedupe_keys_max"),
        ({"max_runtime": Duration(-1)}, "max_runtime"),
        ({"stores": ()}, "stores"),
    ],
)
def test_settings_out_of_range_are_refused(settings_: dict[str, object], field: str) -> None:
    owner = Owner()
    reply = owner.ask(queue("q", **settings_))
    assert isinstance(reply, Rejected)
    assert reply.field == field


def test_settings_at_the_bound_are_taken() -> None:
    owner = Owner()
    owner.do(
        queue(
            "n" * limits.QUEUE_NAME_BYTES_MAX,
            partitions=limits.PARTITIONS_PER_QUEUE_MAX,
            reservation_timeout=limits.QUEUE_TIMEOUT_MAX,
            attempts_max=limits.ATTEMPTS_MAX_MAX,
            reference="x" * limits.REFERENCE_BYTES_MAX,
        )
    )
    assert owner.refuse(queue("n" * (limits.QUEUE_NAME_BYTES_MAX + 1))) == Code.INVALID


@pytest.mark.parametrize(
    ("bound", "command", "per"),
    [
        ("QUEUES_MAX", lambda i: queue(f"q{i}"), 0),
        ("NAMESPACES_MAX", lambda i: CreateNamespace(name=f"n{i}"), 1),
        ("USERS_MAX", lambda i: CreateUser(username=f"u{i}"), 1),
        (
            "API_KEYS_MAX",
            lambda i: CreateApiKey(user_id=ANONYMOUS_USER, name=f"k{i}"),
            0,
        ),
        (
            "ROLES_MAX",
            lambda i: CreateRole(namespace=SYSTEM_NAMESPACE, name=f"r{i}"),
            3,
        ),
    ],
)
def test_every_table_has_its_bound(
    monkeypatch: pytest.MonkeyPatch, bound: str, command: object, per: int
) -> None:
    """At the bound the last one is taken and the next refused. ``per``: made by the bootstrap."""
    monkeypatch.setattr(limits, bound, per + 2)
    owner = Owner()
    make = command
    assert callable(make)
    owner.do(make(1))
    owner.do(make(2))
    assert owner.refuse(make(3)) == Code.LIMIT_EXCEEDED


def test_bindings_have_their_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BINDINGS_MAX", 2)
    owner = Owner()
    user = owner.do(CreateUser(username="u")).id
    owner.do(CreateBinding(namespace=SYSTEM_NAMESPACE, role_name=ADMIN, user_id=user))
    again = CreateBinding(namespace=SYSTEM_NAMESPACE, role_name=NAMESPACE_OWNER, user_id=user)
    assert owner.refuse(again) == Code.LIMIT_EXCEEDED


# --- bootstrap ------------------------------------------------------------------------------------


def test_bootstrap_makes_the_open_door_once() -> None:
    """A second start writes nothing."""
    owner = Owner()
    assert is_allowed(owner.catalog, ANONYMOUS, SYSTEM_NAMESPACE, "user.create")
    written = len(owner.log)
    owner.do(Bootstrap(auth=True))
    assert len(owner.log) == written


def test_a_door_that_was_closed_stays_closed_across_restarts() -> None:
    """The operator deleted the anonymous binding; no later start brings it back, nor does a snapshot."""
    owner = Owner()
    owner.do(DeleteBinding(namespace=SYSTEM_NAMESPACE, role_name=ADMIN, user_id=ANONYMOUS_USER))
    owner.catalog = decode_catalog(encode_catalog(owner.catalog))
    owner.do(Bootstrap(auth=True))
    assert not is_allowed(owner.catalog, ANONYMOUS, SYSTEM_NAMESPACE, "user.list")


def test_without_auth_only_the_namespace_is_made() -> None:
    owner = Owner(auth=False)
    assert list(owner.catalog.namespaces) == [SYSTEM_NAMESPACE]
    assert not owner.catalog.users
    assert not owner.catalog.roles


def test_bootstrap_brings_permissions_of_standard_roles_up_to_date() -> None:
    """An older server knew fewer permissions: the role keeps its id and gets the new ones."""
    owner = Owner()
    role = owner.catalog.find_role(SYSTEM_NAMESPACE, ADMIN)
    assert role is not None
    evolve(owner.catalog, Document(NOW, "", RoleChanged(attrs.evolve(role, permissions=()))))
    owner.do(Bootstrap(auth=True))
    renewed = owner.catalog.find_role(SYSTEM_NAMESPACE, ADMIN)
    assert renewed == role


def test_there_are_29_permissions() -> None:
    assert len(PERMISSIONS) == len(set(PERMISSIONS)) == 29
    assert len(STANDARD_ROLES[NAMESPACE_OWNER]) == 19


# --- keys -----------------------------------------------------------------------------------------


def make_user_with_key(owner: Owner, name: str = "u", **key: Any) -> tuple[str, Changed]:
    user = owner.do(CreateUser(username=name)).id
    return user, owner.do(CreateApiKey(user_id=user, **key))


def test_a_key_is_told_once_and_stored_as_a_hash() -> None:
    owner = Owner()
    user, key = make_user_with_key(owner)
    assert key.secret.startswith(key.prefix)
    assert len(key.secret) == len("qtr-live-") + 43
    assert not any(key.secret.encode() in document for document in owner.log)
    assert key.secret.encode() not in encode_catalog(owner.catalog)
    assert key.secret not in repr(key)
    assert authenticate(owner.catalog, key.secret, NOW) == Principal(user, key.id)


def test_the_tag_comes_from_the_request_the_namespace_or_is_live() -> None:
    owner = Owner()
    owner.do(CreateNamespace(name="n1", api_key_tag="blue"))
    user, _ = make_user_with_key(owner)
    tags = [
        owner.do(CreateApiKey(user_id=user, scope=scope, tag=tag)).prefix.split("-")[1]
        for scope, tag in (("n1", "red"), ("n1", ""), ("nowhere", ""), ("", ""))
    ]
    assert tags == ["red", "blue", "live", "live"]


def test_keys_that_are_not_taken() -> None:
    owner = Owner()
    _, key = make_user_with_key(owner, expires_at=Instant(NOW + 1_000))
    unknown = key.secret[:-1] + ("0" if key.secret[-1] != "0" else "1")
    assert authenticate(owner.catalog, unknown, NOW) == KeyFault.UNKNOWN
    assert authenticate(owner.catalog, "qtr-live-" + "z" * 43, NOW) == KeyFault.UNKNOWN
    assert isinstance(authenticate(owner.catalog, key.secret, Instant(NOW + 999)), Principal)
    assert authenticate(owner.catalog, key.secret, Instant(NOW + 1_000)) == KeyFault.EXPIRED
    for malformed in (
        "",
        "abc",
        "qtr-live",
        "qtr-LIVE-" + "0" * 43,
        "qtr--" + "0" * 43,
        "qtr-live-" + "0" * 42,
        "qtr-live-" + "0" * 42 + "!",
        "xyz-live-" + "0" * 43,
        "qtr-" + "t" * 17 + "-" + "0" * 43,
        "qtr-live-" + "0" * 129,
    ):
        assert authenticate(owner.catalog, malformed, NOW) == KeyFault.MALFORMED, malformed


def test_known_and_unknown_keys_are_compared_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One constant-time comparison each, so that time does not tell which prefixes exist."""
    owner = Owner()
    _, key = make_user_with_key(owner)
    compared: list[int] = []

    def spy(first: bytes, second: bytes) -> bool:
        compared.append(len(first) + len(second))
        return first == second

    monkeypatch.setattr("querator.core.catalog.access.hmac.compare_digest", spy)
    authenticate(owner.catalog, key.secret, NOW)
    authenticate(owner.catalog, "qtr-live-" + "z" * 43, NOW)
    assert compared == [64, 64]


def test_revocation_acts_at_once_on_open_sessions_too() -> None:
    owner = Owner()
    user, key = make_user_with_key(owner)
    principal = authenticate(owner.catalog, key.secret, NOW)
    assert isinstance(principal, Principal)
    assert is_current(owner.catalog, principal, NOW)
    owner.do(DeleteApiKey(key.id))
    assert not is_current(owner.catalog, principal, NOW)
    assert authenticate(owner.catalog, key.secret, NOW) == KeyFault.UNKNOWN
    _, second = user, owner.do(CreateApiKey(user_id=user))
    owner.do(DeleteUser(user))
    assert authenticate(owner.catalog, second.secret, NOW) == KeyFault.UNKNOWN


# --- permissions ----------------------------------------------------------------------------------


def test_a_binding_in_a_namespace_holds_there_and_one_in_system_everywhere() -> None:
    owner = Owner()
    owner.do(CreateNamespace(name="n1"))
    owner.do(CreateRole(namespace="n1", name="lister", permissions=("queue.list",)))
    local = owner.do(CreateUser(username="local")).id
    root = owner.do(CreateUser(username="root")).id
    owner.do(CreateBinding(namespace="n1", role_name="lister", user_id=local))
    owner.do(CreateBinding(namespace=SYSTEM_NAMESPACE, role_name=ADMIN, user_id=root))
    assert is_allowed(owner.catalog, Principal(local), "n1", "queue.list")
    assert not is_allowed(owner.catalog, Principal(local), "n1", "queue.create")
    assert not is_allowed(owner.catalog, Principal(local), SYSTEM_NAMESPACE, "queue.list")
    assert not is_allowed(owner.catalog, Principal(local), "n2", "queue.list")
    assert is_allowed(owner.catalog, Principal(root), "n1", "queue.create")
    assert is_allowed(owner.catalog, Principal(root), "anywhere", "queue.create")


def test_a_scoped_key_works_in_its_namespace_and_by_bindings_in_system() -> None:
    owner = Owner()
    user = owner.do(CreateUser(username="u")).id
    owner.do(CreateBinding(namespace=SYSTEM_NAMESPACE, role_name=ADMIN, user_id=user))
    scoped = Principal(user, scope="n1")
    assert is_allowed(owner.catalog, scoped, "n1", "queue.list")
    assert is_allowed(owner.catalog, scoped, SYSTEM_NAMESPACE, "user.list")
    assert not is_allowed(owner.catalog, scoped, "n2", "queue.list")


def test_a_changed_role_acts_at_once() -> None:
    owner = Owner()
    owner.do(CreateRole(namespace=SYSTEM_NAMESPACE, name="r", permissions=("queue.list",)))
    user = owner.do(CreateUser(username="u")).id
    owner.do(CreateBinding(namespace=SYSTEM_NAMESPACE, role_name="r", user_id=user))
    owner.do(UpdateRole(namespace=SYSTEM_NAMESPACE, name="r", permissions=()))
    assert not is_allowed(owner.catalog, Principal(user), SYSTEM_NAMESPACE, "queue.list")


def test_what_is_in_use_is_not_deleted() -> None:
    owner = Owner()
    owner.do(CreateNamespace(name="n1"))
    owner.do(CreateRole(namespace="n1", name="r"))
    user = owner.do(CreateUser(username="u")).id
    binding = CreateBinding(namespace="n1", role_name="r", user_id=user)
    owner.do(binding)
    assert owner.refuse(DeleteRole(namespace="n1", name="r")) == Code.IN_USE
    assert owner.refuse(DeleteNamespace("n1")) == Code.IN_USE
    owner.do(DeleteUser(user))
    owner.do(DeleteRole(namespace="n1", name="r"))
    owner.do(queue("q", namespace="n1"))
    assert owner.refuse(DeleteNamespace("n1")) == Code.IN_USE
    owner.do(DeleteQueue(QueueName("q")))
    owner.do(DeleteNamespace("n1"))


def test_standard_roles_and_reserved_names_stay() -> None:
    owner = Owner()
    assert owner.refuse(DeleteRole(namespace=SYSTEM_NAMESPACE, name=ADMIN)) == Code.INVALID
    assert owner.refuse(UpdateRole(namespace=SYSTEM_NAMESPACE, name=ADMIN)) == Code.INVALID
    assert owner.refuse(CreateNamespace(name="_mine")) == Code.INVALID
    assert owner.refuse(DeleteNamespace(SYSTEM_NAMESPACE)) == Code.INVALID


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (DeleteQueue(QueueName("x")), Code.UNKNOWN_QUEUE),
        (UpdateQueue(name=QueueName("x")), Code.UNKNOWN_QUEUE),
        (queue("x", namespace="nowhere"), Code.NOT_FOUND),
        (queue("x y"), Code.INVALID),
        (queue("x~"), Code.INVALID),
        (queue(" "), Code.INVALID),
        (UpdateNamespace(name="x"), Code.NOT_FOUND),
        (DeleteNamespace("x"), Code.NOT_FOUND),
        (CreateNamespace(name="x:y"), Code.INVALID),
        (CreateNamespace(name="x", api_key_tag="UP"), Code.INVALID),
        (CreateUser(username=" "), Code.INVALID),
        (CreateUser(username=ANONYMOUS_USER), Code.ALREADY_EXISTS),
        (CreateUser(username="x", email="e" * 257), Code.INVALID),
        (DeleteUser("x"), Code.NOT_FOUND),
        (CreateApiKey(user_id="x"), Code.NOT_FOUND),
        (CreateApiKey(user_id=ANONYMOUS_USER, tag="UP"), Code.INVALID),
        (CreateApiKey(user_id=ANONYMOUS_USER, name="n" * 129), Code.INVALID),
        (DeleteApiKey("x"), Code.NOT_FOUND),
        (CreateRole(namespace="x", name="r"), Code.NOT_FOUND),
        (CreateRole(namespace=SYSTEM_NAMESPACE, name="a:b"), Code.INVALID),
        (CreateRole(namespace=SYSTEM_NAMESPACE, name="r" * 129), Code.INVALID),
        (
            CreateRole(namespace=SYSTEM_NAMESPACE, name="r", permissions=("fly",)),
            Code.INVALID,
        ),
        (UpdateRole(namespace="x", name="r"), Code.NOT_FOUND),
        (CreateBinding(namespace="x", role_name="r", user_id="u"), Code.NOT_FOUND),
        (
            CreateBinding(namespace=SYSTEM_NAMESPACE, role_name=ADMIN, user_id="u"),
            Code.NOT_FOUND,
        ),
        (
            CreateBinding(namespace=SYSTEM_NAMESPACE, role_name=ADMIN, user_id=ANONYMOUS_USER),
            Code.ALREADY_EXISTS,
        ),
        (
            DeleteBinding(namespace=SYSTEM_NAMESPACE, role_name="x", user_id="u"),
            Code.NOT_FOUND,
        ),
        (
            DeleteBinding(namespace=SYSTEM_NAMESPACE, role_name=ADMIN, user_id="u"),
            Code.NOT_FOUND,
        ),
    ],
)
def test_refusals(command: CatalogCommand, code: Code) -> None:
    owner = Owner()
    written = len(owner.log)
    assert owner.refuse(command) == code
    assert len(owner.log) == written


def test_exists_already() -> None:
    owner = Owner()
    owner.do(queue("q"))
    assert owner.refuse(queue("q")) == Code.QUEUE_EXISTS
    owner.do(CreateNamespace(name="n"))
    assert owner.refuse(CreateNamespace(name="n")) == Code.ALREADY_EXISTS
    owner.do(CreateRole(namespace="n", name="r"))
    assert owner.refuse(CreateRole(namespace="n", name="r")) == Code.ALREADY_EXISTS


def test_pages_start_at_the_pivot_or_the_next() -> None:
    owner = Owner()
    for name in ("b", "d", "a"):
        owner.do(queue(name))
    assert [q.name for q in owner.catalog.queues.from_pivot("")] == ["a", "b", "d"]
    assert [q.name for q in owner.catalog.queues.from_pivot("b")] == ["b", "d"]
    assert [q.name for q in owner.catalog.queues.from_pivot("c")] == ["d"]
    assert [q.name for q in owner.catalog.queues.from_pivot("e")] == []
