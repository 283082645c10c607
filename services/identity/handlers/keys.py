"""Making, rotating and loading the signing keys; the first client."""

import asyncio
from datetime import datetime, timedelta

import structlog

from libs.auth import TENANTS_ADMIN
from libs.tenancy import SYSTEM_TENANT
from libs.web.problems import Conflict, Problem
from services.identity.domain import secret_hash
from services.identity.handlers.audit import Caller, record
from services.identity.resources import Resources
from services.identity.signing import AFTERGLOW, ANNOUNCED, make_key
from services.identity.store import accounts, keys
from services.identity.store.transactions import transaction

BOOTSTRAP_CLIENT = "cli"
_RELOAD_SECONDS = 30.0
_log = structlog.get_logger(__name__)


async def load_keys(resources: Resources) -> None:
    """Loads the keys from the database; makes the first one if there is none. Replicas that start at once make one.

    Raises:
        Unavailable: the database is away.
        KeysUnavailable: a key was sealed under another key-encryption key.
    """
    async with transaction(resources.engine, SYSTEM_TENANT) as connection:
        stored = await keys.list_keys(connection)
        if not stored:
            now = await keys.lock_keys(connection)
            stored = await keys.list_keys(connection)
            if not stored:
                first = make_key(resources.keys.sealing_key, now)
                await keys.insert_key(connection, first)
                stored = [first]
    resources.keys.load(stored)


async def rotate_keys(resources: Resources, caller: Caller) -> tuple[str, datetime]:
    """Makes the next signing key; it is published at once and signs once every verifier must know it.

    Returns:
        Its id, and when it begins to sign.

    Raises:
        Conflict: another one is already announced.
    """
    async with transaction(resources.engine, SYSTEM_TENANT) as connection:
        now = await keys.lock_keys(connection)
        waiting = [key for key in await keys.list_keys(connection) if key.signs_from > now]
        if waiting:
            raise Conflict(f"The key {waiting[0].id} is announced already and signs from {waiting[0].signs_from}.")
        following = make_key(resources.keys.sealing_key, now + ANNOUNCED)
        await keys.insert_key(connection, following)
        lifetime = timedelta(seconds=resources.tokens.seconds)
        await keys.retire_keys(connection, following.id, following.signs_from + lifetime + AFTERGLOW)
        await record(resources, SYSTEM_TENANT, "create", caller, f"signing key {following.id}")
        stored = await keys.list_keys(connection)
    resources.keys.load(stored)
    return following.id, following.signs_from


async def ensure_operators(resources: Resources, bootstrap_secret: str | None) -> None:
    """Makes the operators' tenant and, with a secret, the client that makes everything else.

    Raises:
        Unavailable: the database is away.
    """
    async with transaction(resources.engine, SYSTEM_TENANT) as connection:
        await accounts.insert_tenant(connection, SYSTEM_TENANT, "Operators")
        if bootstrap_secret is None:
            return
        wanted = secret_hash(bootstrap_secret)
        made = await accounts.insert_client(connection, SYSTEM_TENANT, BOOTSTRAP_CLIENT, wanted, [TENANTS_ADMIN])
        if made is None:
            await accounts.set_client_secret(connection, SYSTEM_TENANT, BOOTSTRAP_CLIENT, wanted)


async def keep_keys(resources: Resources, bootstrap_secret: str | None) -> None:
    """Prepares the service as soon as the database answers, then renews the keys for ever."""
    delay, prepared = 0.5, False
    while True:
        try:
            if not prepared:
                await ensure_operators(resources, bootstrap_secret)
                prepared = True
            await load_keys(resources)
            delay = _RELOAD_SECONDS
        except Problem as error:
            _log.warning("signing keys can't be loaded; trying again", error=str(error))
            delay = min(max(delay, 0.5) * 2, 10) if delay < _RELOAD_SECONDS else 1.0
        except Exception:
            # Without this task a replica would never notice new keys, so it outlives whatever happens to it.
            _log.exception("signing keys can't be loaded; trying again")
            delay = min(max(delay, 0.5) * 2, 10) if delay < _RELOAD_SECONDS else 1.0
        await asyncio.sleep(delay)
