"""roles.* and rolebindings.*."""

from itertools import islice

from querator.api.http import checks
from querator.api.http.door import Door
from querator.api.http.messages import (
    Role,
    RoleBinding,
    RoleBindingCreateRequest,
    RoleBindingCreateResponse,
    RoleBindingDeleteRequest,
    RoleBindingsListRequest,
    RoleBindingsListResponse,
    RoleCreateRequest,
    RoleCreateResponse,
    RolesDeleteRequest,
    RolesListRequest,
    RolesListResponse,
    RoleUpdateRequest,
)
from querator.api.http.refusals import REQUEST_FAILED, refuse
from querator.api.http.stamps import Stamp
from querator.api.http.user_calls import must_exist
from querator.core import limits
from querator.core.catalog import SYSTEM_NAMESPACE, CatalogCommand, Principal
from querator.core.catalog import values as catalog_values
from querator.core.catalog.commands import (
    CreateBinding,
    CreateRole,
    DeleteBinding,
    DeleteRole,
    UpdateRole,
)
from querator.core.catalog.values import PERMISSIONS, STANDARD_ROLES
from querator.core.white_space import is_blank


async def create(door: Door, caller: Principal, request: RoleCreateRequest) -> RoleCreateResponse:
    namespace, name = request.namespace, request.name

    def decide() -> CatalogCommand:
        _check_given(namespace, name)
        checks.not_longer(name, limits.ROLE_NAME_BYTES_MAX, "name")
        if ":" in name:
            refuse(f"name is invalid; '{name}' cannot contain ':' character")
        _check_permissions(request.permissions)
        door.authorize(caller, "role.create", namespace)
        if is_blank(name):
            refuse("role name is invalid; cannot be empty")
        _check_standard(name)
        if namespace not in door.catalog.namespaces:
            refuse(f"namespace does not exist; '{namespace}' was not found", REQUEST_FAILED)
        if door.catalog.find_role(namespace, name) is not None:
            refuse(f"role already exists; '{namespace}:{name}' already exists")
        return CreateRole(namespace=namespace, name=name, permissions=tuple(request.permissions))

    return RoleCreateResponse((await door.change(caller, decide)).id)


def _check_given(namespace: str, name: str) -> None:
    if not namespace:
        refuse("namespace is invalid; cannot be empty")
    if not name:
        refuse("name is invalid; cannot be empty")


def _check_permissions(permissions: list[str]) -> None:
    for permission in permissions:
        if permission not in PERMISSIONS:
            refuse(f"permission is invalid; '{permission}' is not a recognized permission")


def _check_standard(name: str) -> None:
    if name in STANDARD_ROLES:
        refuse(f"cannot modify or delete standard role; '{name}' is a standard role")


def _find_role(door: Door, namespace: str, name: str) -> catalog_values.Role:
    role = door.catalog.find_role(namespace, name)
    if role is None:
        refuse(f"role does not exist; '{namespace}:{name}' was not found", REQUEST_FAILED)
    return role


async def list_roles(door: Door, caller: Principal, request: RolesListRequest) -> RolesListResponse:
    namespace = request.namespace or SYSTEM_NAMESPACE
    door.authorize(caller, "role.list", namespace)
    chosen = (
        Role(
            id=role.id,
            namespace=role.namespace,
            name=role.name,
            permissions=list(role.permissions),
            created_at=Stamp(role.created_at),
        )
        for role in door.catalog.roles.from_pivot(request.pivot)
        if role.namespace == namespace
    )
    return RolesListResponse(list(islice(chosen, checks.list_limit(request.limit))))


async def update(door: Door, caller: Principal, request: RoleUpdateRequest) -> None:
    namespace, name = request.namespace, request.name

    def decide() -> CatalogCommand:
        _check_given(namespace, name)
        _check_permissions(request.permissions)
        door.authorize(caller, "role.update", namespace)
        _find_role(door, namespace, name)
        _check_standard(name)
        return UpdateRole(namespace=namespace, name=name, permissions=tuple(request.permissions))

    await door.change(caller, decide)


async def delete(door: Door, caller: Principal, request: RolesDeleteRequest) -> None:
    namespace, name = request.namespace or SYSTEM_NAMESPACE, request.name

    def decide() -> CatalogCommand:
        door.authorize(caller, "role.delete", namespace)
        role = _find_role(door, namespace, name)
        _check_standard(name)
        if any(binding.role_id == role.id for binding in door.catalog.bindings.values()):
            refuse(f"role has active bindings; '{name}' has active bindings, delete bindings first")
        return DeleteRole(namespace=namespace, name=name)

    await door.change(caller, decide)


async def create_binding(
    door: Door, caller: Principal, request: RoleBindingCreateRequest
) -> RoleBindingCreateResponse:
    namespace, user_id = request.namespace, request.user_id

    def decide() -> CatalogCommand:
        for value, field in (
            (namespace, "namespace"),
            (request.role_name, "role_name"),
            (user_id, "user_id"),
        ):
            if not value:
                refuse(f"{field} is invalid; cannot be empty")
        _check_user_id(user_id)
        door.authorize(caller, "rolebinding.create", namespace)
        role = _find_role(door, namespace, request.role_name)
        must_exist(door, user_id)
        if door.catalog.find_binding(namespace, user_id, role.id) is not None:
            refuse(
                f"role binding already exists; binding for user '{user_id}' to role '{role.id}' "
                f"in namespace '{namespace}' already exists"
            )
        return CreateBinding(namespace=namespace, role_name=request.role_name, user_id=user_id)

    return RoleBindingCreateResponse((await door.change(caller, decide)).id)


def _check_user_id(user_id: str) -> None:
    if ":" in user_id:
        refuse(f"user_id is invalid; '{user_id}' cannot contain ':' character")


async def list_bindings(
    door: Door, caller: Principal, request: RoleBindingsListRequest
) -> RoleBindingsListResponse:
    namespace = request.namespace or SYSTEM_NAMESPACE
    door.authorize(caller, "rolebinding.list", namespace)
    chosen = (
        RoleBinding(
            id=binding.id,
            namespace=binding.namespace,
            user_id=binding.user_id,
            role_id=binding.role_id,
            created_at=Stamp(binding.created_at),
        )
        for binding in door.catalog.bindings.from_pivot(request.pivot)
        if binding.namespace == namespace and request.user_id_filter in ("", binding.user_id)
    )
    return RoleBindingsListResponse(list(islice(chosen, checks.list_limit(request.limit))))


async def delete_binding(door: Door, caller: Principal, request: RoleBindingDeleteRequest) -> None:
    namespace, user_id = request.namespace or SYSTEM_NAMESPACE, request.user_id

    def decide() -> CatalogCommand:
        _check_user_id(user_id)
        door.authorize(caller, "rolebinding.delete", namespace)
        role = _find_role(door, namespace, request.role_name)
        if door.catalog.find_binding(namespace, user_id, role.id) is None:
            refuse(
                f"role binding does not exist; '{namespace}:{user_id}:{role.id}' was not found",
                REQUEST_FAILED,
            )
        return DeleteBinding(namespace=namespace, role_name=request.role_name, user_id=user_id)

    await door.change(caller, decide)
