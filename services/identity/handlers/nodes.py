"""Nodes: whom a tenant lets in through the cloud's own DICOM door."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from libs.auth import TENANTS_ADMIN
from libs.tenancy import SYSTEM_TENANT
from libs.web.problems import Conflict, NotFound
from services.identity.certificates import read_certificate
from services.identity.domain import CLIENT_NAME, require_name
from services.identity.domain_nodes import (
    Node,
    NodeCertificate,
    own_titles,
    require_ae_title,
    require_ae_titles,
    require_certificates,
    require_networks,
)
from services.identity.errors import InvalidInput
from services.identity.handlers.administration import checked
from services.identity.handlers.audit import Caller, record
from services.identity.resources import Resources
from services.identity.store import nodes
from services.identity.store.transactions import transaction


@dataclass(frozen=True)
class NodeChange:
    """What is to change of a node; what is None stays. ``certificates`` replaces all of them."""

    calling_ae_titles: Sequence[str] | None = None
    networks: Sequence[str] | None = None
    certificates: Sequence[str] | None = None
    enabled: bool | None = None


async def list_nodes(resources: Resources, tenant: str, after: str, limit: int) -> list[Node]:
    """Nodes in the order of their names, from behind ``after``."""
    async with transaction(resources.engine, tenant) as connection:
        return await nodes.list_nodes(connection, tenant, after, limit)


async def create_node(
    resources: Resources,
    tenant: str,
    name: str,
    *,
    called_ae_title: str | None,
    calling_ae_titles: Sequence[str],
    networks: Sequence[str],
    certificates: Sequence[str],
    enabled: bool,
    caller: Caller,
) -> Node:
    """Registers a node.

    Arguments:
        resources: what the service works with.
        tenant: whose node it is.
        name: its name within the tenant.
        called_ae_title: what it will call us; the tenant's own title when it is None.
        calling_ae_titles: what it may call itself; anything when empty.
        networks: where it may come from, in CIDR notation; anywhere when empty.
        certificates: each in PEM, or its SHA-256 fingerprint.
        enabled: whether it is let in at once.
        caller: who asks.

    Raises:
        InvalidInput: what is given breaks a rule, or the title is none of the tenant's.
        Conflict: the name is taken, the certificate belongs to another node of the tenant, or (told to operators only)
            another tenant holds the title.
    """
    if tenant == SYSTEM_TENANT:
        raise InvalidInput("The operators' tenant holds no studies, so nothing can be sent to it.")
    checked(lambda: require_name(name, CLIENT_NAME, "node's name"))
    wanted = None if called_ae_title is None else checked(lambda: require_ae_title(called_ae_title))
    calling = checked(lambda: require_ae_titles(calling_ae_titles))
    places = checked(lambda: require_networks(networks))
    read = checked(lambda: require_certificates([read_certificate(one) for one in certificates]))
    async with transaction(resources.engine, tenant) as connection:
        called = await _choose_title(connection, tenant, wanted, caller)
        if not await nodes.insert_node(
            connection, tenant, name, called=called, calling=calling, networks=places, enabled=enabled
        ):
            raise Conflict(f"There is a node “{name}” already.")
        await _add_certificates(connection, tenant, name, called, read)
        made = await _require_node(connection, tenant, name)
        await record(resources, tenant, "create", caller, f"node {name}: {_in_words(made)}")
    return made


async def change_node(resources: Resources, tenant: str, name: str, change: NodeChange, caller: Caller) -> Node:
    """Changes a node. The door knows of it within the time for which it remembers nodes.

    Raises:
        InvalidInput: what is given breaks a rule.
        NotFound: there is no such node.
        Conflict: a certificate belongs to another node of the tenant.
    """
    titles, networks, certificates = change.calling_ae_titles, change.networks, change.certificates
    calling = None if titles is None else checked(lambda: require_ae_titles(titles))
    places = None if networks is None else checked(lambda: require_networks(networks))
    read = (
        None
        if certificates is None
        else checked(lambda: require_certificates([read_certificate(one) for one in certificates]))
    )
    async with transaction(resources.engine, tenant) as connection:
        node = await _require_node(connection, tenant, name)
        await nodes.update_node(connection, tenant, name, calling=calling, networks=places, enabled=change.enabled)
        if read is not None:
            await nodes.keep_certificates(connection, tenant, name, [one.fingerprint for one in read])
            await _add_certificates(connection, tenant, name, node.called_ae_title, read)
        changed = await _require_node(connection, tenant, name)
        await record(resources, tenant, "change", caller, f"node {name}: {_in_words(changed)}")
    return changed


async def delete_node(resources: Resources, tenant: str, name: str, caller: Caller) -> None:
    """Removes a node, and gives its called AE title back when no other node of the tenant uses it.

    Raises:
        NotFound: there is no such node.
    """
    async with transaction(resources.engine, tenant) as connection:
        await _require_node(connection, tenant, name)
        called = await nodes.delete_node(connection, tenant, name)
        if called is not None:
            await nodes.release_title(connection, tenant, called)
        await record(resources, tenant, "delete", caller, f"node {name}")


async def _choose_title(connection: AsyncConnection, tenant: str, wanted: str | None, caller: Caller) -> str:
    """The called AE title of a new node, which the tenant holds afterwards.

    A tenant's own administrator chooses among the tenant's titles, and is answered the same whether another title is
    free or somebody else's; operators hand out any that is free.
    """
    held = await nodes.titles_of(connection, tenant)
    if wanted is None:
        if held:
            return next((title for title in own_titles(tenant) if title in held), held[0])
        for title in own_titles(tenant):
            if await nodes.hold_title(connection, tenant, title):
                return title
            if await nodes.holder_of(connection, title) == tenant:
                return title  # handed out by another request meanwhile
        raise Conflict("No called AE title is left for this clinic; an operator can choose one.")
    if wanted in held:
        return wanted
    if caller.principal is None or not caller.principal.has(TENANTS_ADMIN):
        ours = f"This clinic is called {', '.join(held)}." if held else "Leave it out, and the clinic gets a title."
        raise InvalidInput(f"“{wanted}” is no called AE title of this clinic. {ours} Operators hand out others.")
    if not await nodes.hold_title(connection, tenant, wanted):
        raise Conflict(f"The called AE title “{wanted}” is held by another clinic.")
    return wanted


async def _add_certificates(
    connection: AsyncConnection, tenant: str, name: str, called: str, certificates: Sequence[NodeCertificate]
) -> None:
    for certificate in certificates:
        owner = await nodes.add_certificate(connection, tenant, name, called, certificate)
        if owner != name:
            raise Conflict(f"The certificate belongs to the node “{owner}” under the called AE title {called} already.")


async def _require_node(connection: AsyncConnection, tenant: str, name: str) -> Node:
    found = await nodes.find_node(connection, tenant, name) if re.fullmatch(CLIENT_NAME, name) else None
    if found is None:
        raise NotFound(f"There is no node “{name[:64]}”.")
    return found


def _in_words(node: Node) -> str:
    certificates = " ".join(one.fingerprint.hex() for one in node.certificates)
    calling = " ".join(node.calling_ae_titles) or "any"
    networks = " ".join(node.networks) or "anywhere"
    state = "enabled" if node.enabled else "disabled"
    return f"{state}, called {node.called_ae_title}, calling {calling}, from {networks}, certificates {certificates}"
