"""Tenants, users and clients: who may administer what, and what a change brings with it."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from libs.auth import TENANTS_ADMIN, USERS_ADMIN, Principal
from libs.events import TENANTS_CHANGED, TenantsChanged, add_to_outbox, envelope
from libs.tenancy import SYSTEM_TENANT
from libs.web.problems import Conflict, NotFound
from services.identity.domain import (
    CLIENT_NAME,
    USER_NAME,
    Client,
    RuleBroken,
    Tenant,
    TenantChange,
    User,
    is_tenant,
    new_password,
    new_secret,
    require_name,
    require_password,
    require_roles,
    require_scopes,
    require_text,
    secret_hash,
)
from services.identity.errors import InvalidInput
from services.identity.handlers.audit import Caller, record, record_refusal
from services.identity.resources import Resources
from services.identity.store import accounts, sessions
from services.identity.store.transactions import transaction

T = TypeVar("T")


@dataclass(frozen=True)
class UserChange:
    """What is to change of a user; what is None stays. ``reset_password`` asks for a generated one."""

    display_name: str | None = None
    roles: Sequence[str] | None = None
    active: bool | None = None
    password: str | None = None
    reset_password: bool = False


def _missing(tenant: str) -> NotFound:
    return NotFound(f"There is no tenant “{tenant[:64]}”.")


async def require_administered(resources: Resources, principal: Principal, tenant: str, caller: Caller) -> Tenant:
    """The tenant, if the caller may administer it: operators every one, others their own.

    Raises:
        NotFound: it does not exist, or is another tenant's; the two answers are the same.
    """
    if not principal.has(TENANTS_ADMIN) and not (principal.has(USERS_ADMIN) and principal.tenant == tenant):
        await record_refusal(resources, principal.tenant, caller, f"tenant {tenant[:64]} is not administered by them")
        raise _missing(tenant)
    found = None
    if is_tenant(tenant):
        async with transaction(resources.engine, tenant) as connection:
            found = await accounts.find_tenant(connection, tenant)
    if found is None:
        raise _missing(tenant)
    return found


# tenants ----------------------------------------------------------------------------------------------------------


async def list_tenants(resources: Resources, after: str, limit: int) -> list[Tenant]:
    """Tenants in the order of their identifiers, from behind ``after``."""
    async with transaction(resources.engine, SYSTEM_TENANT) as connection:
        return await accounts.list_tenants(connection, after, limit)


async def create_tenant(resources: Resources, tenant: str, name: str, caller: Caller) -> Tenant:
    """Makes a tenant, and tells the other services with the same transaction.

    Raises:
        InvalidInput: the identifier or the name breaks a rule.
        Conflict: the identifier is taken.
    """
    if not is_tenant(tenant):
        raise InvalidInput("A tenant's identifier has 2 to 32 lower-case letters, digits and hyphens: north-clinic.")
    name = checked(lambda: require_text(name, "A tenant's name"))
    async with transaction(resources.engine, tenant) as connection:
        made = await accounts.insert_tenant(connection, tenant, name)
        if made is None:
            raise Conflict(f"There is a tenant “{tenant}” already.")
        event = envelope(TENANTS_CHANGED, tenant, TenantsChanged(state="active"))
        await add_to_outbox(connection, TENANTS_CHANGED, event)
        await record(resources, tenant, "create", caller, f"tenant {tenant}")
    resources.outbox_filled.set()
    return made


async def find_tenant(resources: Resources, tenant: str) -> Tenant:
    """One tenant.

    Raises:
        NotFound: there is no such tenant.
    """
    if is_tenant(tenant):
        async with transaction(resources.engine, tenant) as connection:
            found = await accounts.find_tenant(connection, tenant)
        if found is not None:
            return found
    raise _missing(tenant)


async def change_tenant(resources: Resources, tenant: str, change: TenantChange, caller: Caller) -> Tenant:
    """Renames, suspends or resumes a tenant, or changes how its instances are stored.

    Suspending ends its sessions, and no tokens are given out. The services that keep something of the tenant in memory
    are told of every change but that of the name.

    Raises:
        InvalidInput: the name breaks a rule.
        NotFound: there is no such tenant.
        Conflict: the operators' tenant can't be suspended.
    """
    if not is_tenant(tenant):
        raise _missing(tenant)
    if tenant == SYSTEM_TENANT and change.state == "suspended":
        raise Conflict("The operators' own tenant can't be suspended.")
    given = change.name
    shown = None if given is None else checked(lambda: require_text(given, "A tenant's name"))
    async with transaction(resources.engine, tenant) as connection:
        changed = await accounts.update_tenant(connection, tenant, replace(change, name=shown))
        if changed is None:
            raise _missing(tenant)
        if replace(change, name=None) != TenantChange() and tenant != SYSTEM_TENANT:
            now = TenantsChanged(state="active" if changed.active else "suspended")
            await add_to_outbox(connection, TENANTS_CHANGED, envelope(TENANTS_CHANGED, tenant, now))
        if not changed.active:
            await sessions.end_sessions(connection, tenant)
        await record(resources, tenant, "change", caller, f"tenant {tenant}: {change.in_words()}")
    resources.outbox_filled.set()
    return changed


# users ------------------------------------------------------------------------------------------------------------


async def list_users(resources: Resources, tenant: str, after: str, limit: int) -> list[User]:
    """Users in the order of their names, from behind ``after``."""
    async with transaction(resources.engine, tenant) as connection:
        return await accounts.list_users(connection, tenant, after, limit)


async def create_user(
    resources: Resources,
    tenant: str,
    name: str,
    *,
    display_name: str,
    roles: Sequence[str],
    password: str | None,
    caller: Caller,
) -> tuple[User, str | None]:
    """Makes a user. Without a password one is generated and returned, this once.

    Raises:
        InvalidInput: name, password or roles break a rule.
        Conflict: the name is taken.
    """
    checked(lambda: require_name(name, USER_NAME, "user's name"))
    shown = checked(lambda: require_text(display_name or name, "A user's display name"))
    checked_roles = checked(lambda: require_roles(roles, tenant))
    generated = new_password() if password is None else None
    hashed = await resources.passwords.hash(checked(lambda: require_password(password or generated or "", name)))
    async with transaction(resources.engine, tenant) as connection:
        made = await accounts.insert_user(
            connection, tenant, name, display_name=shown, password_hash=hashed, roles=checked_roles
        )
        if made is None:
            raise Conflict(f"There is a user “{name}” already.")
        await record(resources, tenant, "create", caller, f"user {name}: {', '.join(checked_roles)}")
    return made, generated


async def change_user(
    resources: Resources, tenant: str, name: str, change: UserChange, caller: Caller
) -> tuple[User, str | None]:
    """Changes a user. New roles, a new password and disabling end the user's sessions.

    Returns:
        The user, and the generated password if one was asked for.

    Raises:
        InvalidInput: what is given breaks a rule.
        NotFound: there is no such user.
        Conflict: administrators can't disable themselves or give up their own administration.
    """
    if not re.fullmatch(USER_NAME, name):
        raise NotFound(f"There is no user “{name[:64]}”.")
    display_name, roles, password = change.display_name, change.roles, change.password
    if password is not None and change.reset_password:
        raise InvalidInput("Either give a password or ask for a generated one.")
    shown = None if display_name is None else checked(lambda: require_text(display_name, "A user's display name"))
    checked_roles = None if roles is None else checked(lambda: require_roles(roles, tenant))
    _refuse_self_harm(tenant, name, change, caller)
    generated = new_password() if change.reset_password else None
    wanted = password if password is not None else generated
    hashed = None
    if wanted is not None:
        hashed = await resources.passwords.hash(checked(lambda: require_password(wanted, name)))
    async with transaction(resources.engine, tenant) as connection:
        changed = await accounts.update_user(
            connection,
            tenant,
            name,
            display_name=shown,
            password_hash=hashed,
            roles=checked_roles,
            active=change.active,
        )
        if changed is None:
            raise NotFound(f"There is no user “{name[:64]}”.")
        if checked_roles is not None or hashed is not None or change.active is False:
            await sessions.end_sessions(connection, tenant, name)
        await record(resources, tenant, "change", caller, f"user {name}: {_in_words(change)}")
    return changed, generated


def _refuse_self_harm(tenant: str, name: str, change: UserChange, caller: Caller) -> None:
    me = caller.principal
    if me is None or me.tenant != tenant or me.subject != f"user:{name}":
        return
    needed = {"operator"} if tenant == SYSTEM_TENANT else {"tenant-administrator"}
    if change.active is False or (change.roles is not None and not needed & set(change.roles)):
        raise Conflict("You can't take your own administration away; ask another administrator.")


def _in_words(change: UserChange) -> str:
    parts = []
    if change.display_name is not None:
        parts.append("display name")
    if change.roles is not None:
        parts.append(f"roles {' '.join(sorted(set(change.roles)))}")
    if change.active is not None:
        parts.append("enabled" if change.active else "disabled")
    if change.password is not None or change.reset_password:
        parts.append("password")
    return ", ".join(parts) or "nothing"


# clients ----------------------------------------------------------------------------------------------------------


async def list_clients(resources: Resources, tenant: str, after: str, limit: int) -> list[Client]:
    """Clients in the order of their names, from behind ``after``."""
    async with transaction(resources.engine, tenant) as connection:
        return await accounts.list_clients(connection, tenant, after, limit)


async def create_client(
    resources: Resources, tenant: str, name: str, scopes: Sequence[str], caller: Caller
) -> tuple[Client, str]:
    """Makes a client. Returns it with its secret, which is kept as a hash only and can't be shown again.

    Raises:
        InvalidInput: name or scopes break a rule.
        Conflict: the name is taken.
    """
    checked(lambda: require_name(name, CLIENT_NAME, "client's name"))
    allowed = checked(lambda: require_scopes(scopes, tenant))
    secret = new_secret()
    async with transaction(resources.engine, tenant) as connection:
        made = await accounts.insert_client(connection, tenant, name, secret_hash(secret), allowed)
        if made is None:
            raise Conflict(f"There is a client “{name}” already.")
        await record(resources, tenant, "create", caller, f"client {name}: {' '.join(allowed)}")
    return made, secret


async def rotate_client(resources: Resources, tenant: str, name: str, caller: Caller) -> tuple[Client, str]:
    """Gives a client a new secret, which is returned this once; the old one ends at once.

    Raises:
        NotFound: there is no such client.
    """
    _require_client_name(name)
    secret = new_secret()
    async with transaction(resources.engine, tenant) as connection:
        changed = await accounts.set_client_secret(connection, tenant, name, secret_hash(secret))
        if changed is None:
            raise NotFound(f"There is no client “{name[:64]}”.")
        await record(resources, tenant, "change", caller, f"client {name}: secret")
    return changed, secret


async def delete_client(resources: Resources, tenant: str, name: str, caller: Caller) -> None:
    """Removes a client; its tokens end within their lifetime.

    Raises:
        NotFound: there is no such client.
    """
    _require_client_name(name)
    async with transaction(resources.engine, tenant) as connection:
        if not await accounts.delete_client(connection, tenant, name):
            raise NotFound(f"There is no client “{name[:64]}”.")
        await record(resources, tenant, "delete", caller, f"client {name}")


def _require_client_name(name: str) -> None:
    if not re.fullmatch(CLIENT_NAME, name):
        raise NotFound(f"There is no client “{name[:64]}”.")


def checked(rule: Callable[[], T]) -> T:
    """What the rule gives; a broken one is the caller's mistake."""
    try:
        return rule()
    except RuleBroken as error:
        raise InvalidInput(str(error)) from error
