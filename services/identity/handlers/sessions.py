"""Logging in, renewing, logging out; tokens for machines."""

import hmac
import re
from dataclasses import dataclass
from http import HTTPStatus

from libs.auth import scopes_of
from libs.web.problems import NotFound
from services.identity.domain import (
    ADDRESS_LIMIT,
    CLIENT_LIMIT,
    CLIENT_NAME,
    USER_LIMIT,
    USER_NAME,
    Client,
    Limit,
    Tenant,
    User,
    address_attempts,
    client_attempts,
    is_tenant,
    new_secret,
    parse_session_cookie,
    secret_hash,
    session_cookie,
    session_name,
    user_attempts,
)
from services.identity.errors import (
    LockedOut,
    SessionEnded,
    TenantSuspended,
    TokenRefused,
    WrongCredentials,
    in_words,
)
from services.identity.handlers.audit import Caller, record, record_refusal
from services.identity.resources import Resources
from services.identity.store import accounts, sessions
from services.identity.store.transactions import transaction

_NO_SECRET = secret_hash("")
_SHOWN = 64


@dataclass(frozen=True)
class LoggedIn:
    """What a browser gets.

    Attributes:
        access: an access token.
        session: the value of the session cookie, after a log-in.
    """

    access: str
    session: str = ""


async def find_clinic(resources: Resources, tenant: str) -> Tenant:
    """The tenant that somebody wants to log in to.

    Raises:
        NotFound: there is none of that name.
    """
    found = None
    if is_tenant(tenant):
        async with transaction(resources.engine, tenant) as connection:
            found = await accounts.find_tenant(connection, tenant)
    if found is None:
        raise NotFound(f"There is no clinic with the short name “{tenant[:_SHOWN]}”.")
    return found


async def log_in(
    resources: Resources, tenant: str, name: str, password: str, *, caller: Caller, replaced: str = ""
) -> LoggedIn:
    """Checks the password and opens a session.

    Arguments:
        resources: what the service holds open.
        tenant: an existing tenant.
        name: the user's name.
        password: as it was typed.
        caller: where the request comes from.
        replaced: the cookie of the browser's earlier session, which ends.

    Raises:
        WrongCredentials: the name or the password is wrong, or the user is disabled.
        LockedOut: too many log-ins have failed, for this user or from this address.
        TenantSuspended: the password is right, but the clinic is suspended.
        Unavailable: something that is needed is away.
    """
    name = name.strip().lower()[:_SHOWN]
    actor = f"user:{name}"
    found = None
    if re.fullmatch(USER_NAME, name):
        async with transaction(resources.engine, tenant) as connection:
            found = await accounts.find_user(connection, tenant, name)
    subjects = (
        (address_attempts(caller.address), ADDRESS_LIMIT),
        (user_attempts(name, known=found is not None), USER_LIMIT),
    )
    failures = await _reserve(resources, tenant, subjects, caller, actor)
    right = await resources.passwords.verify(found[1] if found else None, password)
    if not right or found is None or not found[0].active:
        reason = "the user is disabled" if right else "wrong name or password"
        lock = USER_LIMIT.seconds(failures)
        detail = f"{reason}; locked for {in_words(lock)}" if lock else reason
        await record(resources, tenant, "log-in", caller, detail, actor=actor, success=False)
        raise WrongCredentials("Check both; capital and small letters differ in the password.")
    return await _open_session(
        resources, tenant, found, password=password, subjects=subjects, caller=caller, replaced=replaced
    )


async def _open_session(
    resources: Resources,
    tenant: str,
    found: tuple[User, str],
    *,
    password: str,
    subjects: tuple[tuple[str, Limit], ...],
    caller: Caller,
    replaced: str,
) -> LoggedIn:
    user, stored = found
    actor = f"user:{user.name}"
    renewed = await resources.passwords.hash(password) if resources.passwords.is_outdated(stored) else None
    secret = new_secret()
    async with transaction(resources.engine, tenant) as connection:
        clinic = await accounts.find_tenant(connection, tenant)
        current = await accounts.find_user(connection, tenant, user.name, lock=True)
        # The user may have been changed while the password was being verified.
        if current is None or not current[0].active or current[1] != stored:
            raise WrongCredentials("The account has just been changed. Try again.")
        for (subject, _), forget in zip(subjects, (False, True), strict=True):
            await sessions.release_attempt(connection, tenant, subject, forget=forget)
        await sessions.forget_attempts(connection, tenant)
        suspended = clinic is None or not clinic.active
        if not suspended:
            if renewed is not None:
                await accounts.update_user(connection, tenant, user.name, password_hash=renewed)
            earlier = parse_session_cookie(replaced)
            if earlier is not None and earlier[0] == tenant:
                await sessions.delete_session(connection, tenant, secret_hash(earlier[1]))
            await sessions.insert_session(connection, tenant, secret_hash(secret), user.name)
            await record(resources, tenant, "log-in", caller, "", actor=actor, actor_name=user.display_name)
    if suspended:
        await record_refusal(resources, tenant, caller, "the tenant is suspended", actor=actor)
        raise TenantSuspended("Its operators can tell why.")
    access = _user_token(resources, tenant, current[0], secret_hash(secret), clinic.name if clinic else "")
    return LoggedIn(access, session_cookie(tenant, secret))


async def _reserve(
    resources: Resources, tenant: str, subjects: tuple[tuple[str, Limit], ...], caller: Caller, actor: str
) -> int:
    """Counts the attempt under each subject, and returns the count of the last; none counts when one is locked."""
    failures = 0
    try:
        async with transaction(resources.engine, tenant) as connection:
            for subject, limit in subjects:
                counted = await sessions.reserve_attempt(connection, tenant, subject, limit)
                if counted is None:
                    raise LockedOut(await sessions.locked_seconds(connection, tenant, subject, limit))
                failures = counted
    except LockedOut:
        await record_refusal(resources, tenant, caller, "locked out after failed log-ins", actor=actor)
        raise
    return failures


async def renew(resources: Resources, cookie: str, idle_seconds: int, caller: Caller) -> LoggedIn:
    """A new access token for a session that goes on.

    Arguments:
        resources: what the service holds open.
        cookie: the session cookie.
        idle_seconds: how long ago the user last did something, as far as the page knows.
        caller: where the request comes from.

    Raises:
        SessionEnded: there is no such session any more.
        Unavailable: something that is needed is away.
    """
    parsed = parse_session_cookie(cookie)
    if parsed is None:
        raise SessionEnded("Log in again.")
    tenant, secret = parsed
    id_hash = secret_hash(secret)
    async with transaction(resources.engine, tenant) as connection:
        state = await sessions.touch_session(connection, tenant, id_hash, idle_seconds)
        if state is not None and not state.active:
            await sessions.delete_session(connection, tenant, id_hash)
            await record(resources, tenant, "log-out", caller, "ended", actor=f"user:{state.user.name}")
        elif state is None:
            # Only a tenant that exists has an audit record of its own.
            known = await accounts.find_tenant(connection, tenant)
            await record_refusal(resources, tenant if known else None, caller, "the session has ended")
    if state is None or not state.active:
        raise SessionEnded("Log in again.")
    return LoggedIn(_user_token(resources, tenant, state.user, id_hash, state.tenant_name))


async def log_out(resources: Resources, cookie: str, caller: Caller) -> str | None:
    """Ends the session. Returns the tenant it belonged to, or None when the cookie says nothing."""
    parsed = parse_session_cookie(cookie)
    if parsed is None:
        return None
    tenant, secret = parsed
    async with transaction(resources.engine, tenant) as connection:
        user = await sessions.delete_session(connection, tenant, secret_hash(secret))
        if user is not None:
            await record(resources, tenant, "log-out", caller, "", actor=f"user:{user}")
    return tenant


async def issue_client_token(
    resources: Resources, client_id: str, secret: str, scope: str, caller: Caller
) -> tuple[str, tuple[str, ...]]:
    """A token for a machine (RFC 6749 section 4.4).

    Arguments:
        resources: what the service holds open.
        client_id: ``TENANT.NAME``.
        secret: the client's secret.
        scope: scopes asked for, separated by spaces; all of the client's when empty.
        caller: where the request comes from.

    Returns:
        The access token and its scopes.

    Raises:
        TokenRefused: the client or its secret is wrong, its tenant suspended, or a scope not its own.
        Unavailable: something that is needed is away.
    """
    client = await _authenticate_client(resources, client_id, secret, caller)
    tenant, name = client_id.partition(".")[::2]
    wanted = tuple(sorted(set(scope.split()))) or client.scopes
    if not set(wanted) <= set(client.scopes):
        raise TokenRefused("invalid_scope", f"The client may ask for: {' '.join(client.scopes)}.")
    subject = f"client:{name}"
    token = resources.tokens.sign(tenant, subject, name=name, scopes=wanted)
    await record(resources, tenant, "log-in", caller, " ".join(wanted), actor=subject, actor_name=name)
    return token, wanted


async def _authenticate_client(resources: Resources, client_id: str, secret: str, caller: Caller) -> Client:
    """The client, whose secret is right and whose tenant is active."""
    tenant, _, name = client_id.partition(".")
    well_formed = is_tenant(tenant) and re.fullmatch(CLIENT_NAME, name) is not None
    found, clinic, wait = None, None, 0
    if well_formed:
        subject = client_attempts(name, caller.address)
        async with transaction(resources.engine, tenant) as connection:
            clinic = await accounts.find_tenant(connection, tenant)
            if clinic is not None:
                found = await accounts.find_client(connection, tenant, name)
                if await sessions.reserve_attempt(connection, tenant, subject, CLIENT_LIMIT) is None:
                    wait = await sessions.locked_seconds(connection, tenant, subject, CLIENT_LIMIT)
                    found = None
            # Compared in constant time, with something even when there is no such client.
            right = hmac.compare_digest(found[1] if found else _NO_SECRET, secret_hash(secret)) and found is not None
            if right:
                await sessions.release_attempt(connection, tenant, subject, forget=True)
    actor = f"client:{name[:_SHOWN]}"
    where = tenant if clinic is not None else None
    if wait:
        await record_refusal(resources, where, caller, "locked out after wrong client secrets", actor=actor)
        detail = f"Too many wrong secrets. Try again in {in_words(wait)}."
        raise TokenRefused("invalid_client", detail, status=HTTPStatus.TOO_MANY_REQUESTS, retry_after=wait)
    if not well_formed or found is None or not right or not found[0].active:
        await record_refusal(resources, where, caller, "wrong client or secret", actor=actor)
        raise TokenRefused("invalid_client", "The client or its secret is wrong.", status=HTTPStatus.UNAUTHORIZED)
    if clinic is None or not clinic.active:
        await record_refusal(resources, where, caller, "the tenant is suspended", actor=actor)
        raise TokenRefused("unauthorized_client", "The tenant is suspended.")
    return found[0]


def _user_token(resources: Resources, tenant: str, user: User, id_hash: bytes, tenant_name: str) -> str:
    return resources.tokens.sign(
        tenant,
        f"user:{user.name}",
        name=user.display_name,
        scopes=scopes_of(user.roles, tenant),
        roles=user.roles,
        session=session_name(id_hash),
        tenant_name=tenant_name,
    )
