"""users.* and apikeys.*."""

from itertools import islice

from querator.api.http import checks
from querator.api.http.door import Door
from querator.api.http.messages import (
    APIKeyCreateRequest,
    APIKeyCreateResponse,
    APIKeyMetadata,
    APIKeysDeleteRequest,
    APIKeysListRequest,
    APIKeysListResponse,
    User,
    UserCreateRequest,
    UserCreateResponse,
    UsersDeleteRequest,
    UsersListRequest,
    UsersListResponse,
)
from querator.api.http.refusals import REQUEST_FAILED, UNAUTHORIZED, refuse
from querator.api.http.stamps import ZERO_TIME, Stamp
from querator.core import limits
from querator.core.catalog import CatalogCommand, Principal
from querator.core.catalog.commands import CreateApiKey, CreateUser, DeleteApiKey, DeleteUser
from querator.core.ids import NEVER, Instant
from querator.core.white_space import is_blank


async def create_user(door: Door, caller: Principal, request: UserCreateRequest) -> UserCreateResponse:
    def decide() -> CatalogCommand:
        checks.not_longer(request.username, limits.USERNAME_BYTES_MAX, "username")
        if is_blank(request.username):
            refuse("username is invalid; cannot be empty")
        checks.not_longer(request.email, limits.EMAIL_BYTES_MAX, "email")
        checks.not_longer(request.external_id, limits.EXTERNAL_ID_BYTES_MAX, "external_id")
        door.authorize(caller, "user.create")
        if door.catalog.find_user_named(request.username) is not None:
            refuse(f"username is already taken; '{request.username}' is already taken")
        return CreateUser(username=request.username, email=request.email, external_id=request.external_id)

    return UserCreateResponse((await door.change(caller, decide)).id)


async def list_users(door: Door, caller: Principal, request: UsersListRequest) -> UsersListResponse:
    door.authorize(caller, "user.list")
    chosen = islice(door.catalog.users.from_pivot(request.pivot), checks.list_limit(request.limit))
    return UsersListResponse(
        [
            User(
                id=user.id,
                username=user.username,
                external_id=user.external_id,
                email=user.email,
                created_at=Stamp(user.created_at),
                updated_at=Stamp(user.updated_at),
            )
            for user in chosen
        ]
    )


async def delete_user(door: Door, caller: Principal, request: UsersDeleteRequest) -> None:
    def decide() -> CatalogCommand:
        door.authorize(caller, "user.delete")
        must_exist(door, request.id)
        return DeleteUser(request.id)

    await door.change(caller, decide)


def must_exist(door: Door, user_id: str) -> None:
    """Raises:
    Refused: there is no such user.
    """
    if user_id not in door.catalog.users:
        refuse(f"user does not exist; '{user_id}' was not found", REQUEST_FAILED)


async def create_key(door: Door, caller: Principal, request: APIKeyCreateRequest) -> APIKeyCreateResponse:
    def decide() -> CatalogCommand:
        if is_blank(request.user_id):
            refuse("user_id is invalid; cannot be empty")
        checks.not_longer(request.name, limits.API_KEY_NAME_BYTES_MAX, "name")
        checks.key_tag(request.key_tag, "key_tag")
        door.authorize(caller, "apikey.create")
        must_exist(door, request.user_id)
        return CreateApiKey(
            user_id=request.user_id,
            name=request.name,
            scope=request.namespace_scope,
            tag=request.key_tag,
            expires_at=_expiry(request.expires_at),
        )

    made = await door.change(caller, decide)
    return APIKeyCreateResponse(made.id, made.secret, made.prefix)


def _expiry(stamp: Stamp | None) -> Instant:
    """Go's zero time is "never" as well; anything else before 1970 is simply over."""
    return NEVER if stamp is None or stamp == ZERO_TIME else Instant(max(1, int(stamp)))


def _used(door: Door, key_id: str) -> Stamp | None:
    used = door.access.last_used(key_id)
    return Stamp(used) if used != NEVER else None


async def list_keys(door: Door, caller: Principal, request: APIKeysListRequest) -> APIKeysListResponse:
    door.authorize(caller, "apikey.list")
    chosen = (
        APIKeyMetadata(
            id=key.id,
            user_id=key.user_id,
            namespace_scope=key.scope,
            name=key.name,
            prefix=key.prefix,
            expires_at=Stamp(key.expires_at) if key.expires_at != NEVER else None,
            last_used_at=_used(door, key.id),
            created_at=Stamp(key.created_at),
        )
        for key in door.catalog.keys.from_pivot(request.pivot)
        if not request.user_id or key.user_id == request.user_id
    )
    return APIKeysListResponse(list(islice(chosen, checks.list_limit(request.limit))))


async def delete_key(door: Door, caller: Principal, request: APIKeysDeleteRequest) -> None:
    def decide() -> CatalogCommand:
        door.authorize(caller, "apikey.delete")
        if request.id not in door.catalog.keys:
            refuse("api key does not exist", UNAUTHORIZED)
        return DeleteApiKey(request.id)

    await door.change(caller, decide)
