"""namespaces.*."""

from itertools import islice

from querator.api.http import checks
from querator.api.http.door import Door
from querator.api.http.messages import (
    NamespaceInfo,
    NamespacesDeleteRequest,
    NamespacesListRequest,
    NamespacesListResponse,
)
from querator.api.http.refusals import REQUEST_FAILED, refuse
from querator.api.http.stamps import Stamp
from querator.core.catalog import CatalogCommand, Principal
from querator.core.catalog.commands import CreateNamespace, DeleteNamespace, UpdateNamespace


async def create(door: Door, caller: Principal, request: NamespaceInfo) -> None:
    def decide() -> CatalogCommand:
        _check(door, caller, request, "namespace.create")
        if request.name in door.catalog.namespaces:
            refuse(f"namespace already exists; '{request.name}' already exists")
        return CreateNamespace(
            name=request.name, description=request.description, api_key_tag=request.api_key_tag
        )

    await door.change(caller, decide)


async def update(door: Door, caller: Principal, request: NamespaceInfo) -> None:
    def decide() -> CatalogCommand:
        _check(door, caller, request, "namespace.update")
        _must_exist(door, request.name)
        return UpdateNamespace(
            name=request.name, description=request.description, api_key_tag=request.api_key_tag
        )

    await door.change(caller, decide)


def _check(door: Door, caller: Principal, request: NamespaceInfo, permission: str) -> None:
    checks.namespace_name(request.name)
    checks.key_tag(request.api_key_tag, "api_key_tag")
    door.authorize(caller, permission)
    checks.namespace_not_reserved(request.name)


def _must_exist(door: Door, name: str) -> None:
    if name not in door.catalog.namespaces:
        refuse(f"namespace does not exist; '{name}' was not found", REQUEST_FAILED)


async def list_namespaces(
    door: Door, caller: Principal, request: NamespacesListRequest
) -> NamespacesListResponse:
    door.authorize(caller, "namespace.list")
    chosen = islice(door.catalog.namespaces.from_pivot(request.pivot), checks.list_limit(request.limit))
    return NamespacesListResponse(
        [
            NamespaceInfo(
                name=namespace.name,
                description=namespace.description,
                created_at=Stamp(namespace.created_at),
                api_key_tag=namespace.api_key_tag,
            )
            for namespace in chosen
        ]
    )


async def delete(door: Door, caller: Principal, request: NamespacesDeleteRequest) -> None:
    name = request.name

    def decide() -> CatalogCommand:
        checks.namespace_name(name)
        door.authorize(caller, "namespace.delete")
        checks.namespace_not_reserved(name)
        catalog = door.catalog
        if any(binding.namespace == name for binding in catalog.bindings.values()):
            refuse(f"namespace has role bindings; '{name}' has role bindings, delete role bindings first")
        if any(role.namespace == name for role in catalog.roles.values()):
            refuse(f"namespace has roles; '{name}' has roles, delete roles first")
        if any(queue.namespace == name for queue in catalog.queues.values()):
            refuse(f"namespace has queues; '{name}' has queues, delete queues first")
        _must_exist(door, name)
        return DeleteNamespace(name)

    await door.change(caller, decide)
