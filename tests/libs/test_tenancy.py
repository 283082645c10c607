"""One tenant never sees another's rows: not by a missing setting, a pooled connection, an error or a cancellation."""

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from libs.tenancy import InvalidTenant, bucket_name, create_engine, tenant_transaction
from tests.support.backing import Backing

SERVICES = ("identity", "ingest_gateway", "indexing", "dicomweb", "portal", "audit")
WRITE = text(
    "INSERT INTO packs (tenant_id, key, size, index_offset, index_length, stored) "
    "VALUES (:tenant, :key, 1, 0, 1, now())"
)
READ = text("SELECT DISTINCT tenant_id FROM packs")
END = text("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'dying'")


@pytest.fixture
async def engine(backing: Backing) -> AsyncIterator[AsyncEngine]:
    """A pool of a single connection, as the role of indexing."""
    made = create_async_engine(backing.database_url("indexing"), pool_size=1, max_overflow=0, pool_timeout=20)
    yield made
    await made.dispose()


@pytest.fixture
async def owner(backing: Backing) -> AsyncIterator[AsyncEngine]:
    """The owner of the tables, who may look into the system catalogue."""
    made = create_engine(backing.database_url("owner"))
    yield made
    await made.dispose()


async def write(engine: AsyncEngine, tenant: str, key: str = "") -> None:
    """Adds a row of the tenant."""
    async with tenant_transaction(engine, tenant) as connection:
        await connection.execute(WRITE, {"tenant": tenant, "key": key or uuid4().hex})


async def test_without_a_tenant_there_are_no_rows(engine: AsyncEngine, tenant: str) -> None:
    """A query whose tenant somebody forgot shows nothing, rather than everything."""
    await write(engine, tenant)
    async with engine.begin() as connection:
        assert (await connection.execute(READ)).all() == []


async def test_rows_of_another_tenant_are_neither_seen_nor_touched(
    engine: AsyncEngine, tenant_pair: tuple[str, str]
) -> None:
    """Reading, changing and deleting end at the tenant's border, and so does writing in another's name."""
    one, other = tenant_pair
    await write(engine, one, "k")
    await write(engine, other, "k")  # the same key is no conflict, so it tells nothing of the other
    async with tenant_transaction(engine, one) as connection:
        assert (await connection.execute(READ)).scalars().all() == [one]
        assert (await connection.execute(text("UPDATE packs SET size = 2"))).rowcount == 1
        assert (await connection.execute(text("DELETE FROM packs"))).rowcount == 1
    async with tenant_transaction(engine, other) as connection:
        assert (await connection.execute(text("SELECT size FROM packs"))).scalars().all() == [1]
    with pytest.raises(DBAPIError, match="row-level security"):
        async with tenant_transaction(engine, one) as connection:
            await connection.execute(WRITE, {"tenant": other, "key": "x"})


async def test_one_connection_for_many_tenants(engine: AsyncEngine, tenant_pair: tuple[str, str]) -> None:
    """Under load tenants take turns on a connection, with errors and broken-off requests between."""
    for tenant in tenant_pair:
        await write(engine, tenant)

    async def look(tenant: str, number: int) -> None:
        async with tenant_transaction(engine, tenant) as connection:
            assert (await connection.execute(READ)).scalars().all() == [tenant]
            if number % 5 == 1:
                await connection.execute(text("SELECT 1 / 0"))
            if number % 5 == 2:
                raise RuntimeError("the handler failed")
            if number % 5 == 3:
                await connection.execute(text("SELECT pg_sleep(5)"))

    async def request(tenant: str, number: int) -> None:
        try:
            async with asyncio.timeout(0.05 if number % 5 == 3 else 30):
                await look(tenant, number)
        except (DBAPIError, RuntimeError, TimeoutError):
            pass

    await asyncio.gather(*(request(tenant_pair[number % 2], number) for number in range(40)))
    async with engine.begin() as connection:
        assert (await connection.execute(READ)).all() == []
        assert (await connection.execute(text("SELECT current_setting('lightbox.tenant', true)"))).scalar_one() in {
            None,
            "",
        }


async def test_a_cancelled_request_takes_its_tenant_along(engine: AsyncEngine, tenant_pair: tuple[str, str]) -> None:
    """The next user of the connection must not be taken for the one before."""
    one, other = tenant_pair
    for tenant in tenant_pair:
        await write(engine, tenant)
    began = asyncio.Event()

    async def slow() -> None:
        async with tenant_transaction(engine, one) as connection:
            await connection.execute(WRITE, {"tenant": one, "key": "never"})
            began.set()
            await connection.execute(text("SELECT pg_sleep(30)"))

    task = asyncio.create_task(slow())
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with tenant_transaction(engine, other) as connection:
        assert (await connection.execute(READ)).scalars().all() == [other]
    async with tenant_transaction(engine, one) as connection:
        assert (await connection.execute(text("SELECT 1 FROM packs WHERE key = 'never'"))).all() == []


async def test_connections_that_died_are_not_noticed(backing: Backing, engine: AsyncEngine, tenant: str) -> None:
    """After a restart of PostgreSQL a clinic works on; no image is refused because the pool is old."""
    dying = create_engine(backing.database_url("indexing"), application_name="dying")
    both = asyncio.Barrier(2)

    async def use() -> None:
        async with tenant_transaction(dying, tenant) as connection:
            await both.wait()
            await connection.execute(READ)

    try:
        await asyncio.gather(use(), use())
        async with engine.begin() as connection:
            assert (await connection.execute(END)).scalars().all() == [True, True]
        await asyncio.gather(use(), use())
        await write(dying, tenant)
    finally:
        await dying.dispose()


async def test_a_connection_that_dies_in_mid_transaction_is_an_error(
    backing: Backing, engine: AsyncEngine, tenant: str
) -> None:
    """What was done is lost with it; going on elsewhere would keep half of it."""
    dying = create_engine(backing.database_url("indexing"), application_name="dying")
    begun = 0

    async def store_two() -> None:
        nonlocal begun
        async with tenant_transaction(dying, tenant) as connection:
            begun += 1
            await connection.execute(WRITE, {"tenant": tenant, "key": "one"})
            async with engine.begin() as other:
                assert (await other.execute(END)).scalars().all() == [True]
            await connection.execute(WRITE, {"tenant": tenant, "key": "two"})

    try:
        with pytest.raises(DBAPIError) as raised:
            await store_two()
        assert raised.value.connection_invalidated
        assert begun == 1
        async with tenant_transaction(dying, tenant) as connection:
            assert (await connection.execute(READ)).all() == []
    finally:
        await dying.dispose()


async def test_every_tenant_table_is_guarded(owner: AsyncEngine) -> None:
    """A table that somebody adds without a policy would show all tenants to each."""
    query = text("""
        SELECT c.relname, c.relrowsecurity, c.relforcerowsecurity, k.unique_without, p.guarded
        FROM pg_class c
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
        CROSS JOIN LATERAL (
            SELECT count(*) AS unique_without FROM pg_index i
            WHERE i.indrelid = c.oid AND i.indisunique AND i.indkey[0] <> a.attnum) k
        CROSS JOIN LATERAL (
            SELECT count(*) AS guarded FROM pg_policy y
            WHERE y.polrelid = c.oid AND y.polcmd = '*' AND y.polroles = '{0}'
                AND pg_get_expr(y.polqual, c.oid) LIKE '%tenant_id = current_setting(''lightbox.tenant''%'
                AND pg_get_expr(y.polwithcheck, c.oid) LIKE '%tenant_id = current_setting(''lightbox.tenant''%') p
        WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace ORDER BY 1
    """)
    async with owner.begin() as connection:
        rows = (await connection.execute(query)).all()
    assert {row.relname for row in rows} >= {"studies", "instances", "audit_records", "outbox", "users"}
    for row in rows:
        assert row.relrowsecurity, f"{row.relname}: row-level security is not enabled"
        assert row.relforcerowsecurity, f"{row.relname}: row-level security is not forced"
        assert row.guarded == 1, f"{row.relname}: no policy with USING and WITH CHECK on the tenant"
        assert row.unique_without == 0, f"{row.relname}: a unique key does not begin with the tenant"


async def test_tables_without_tenant_hold_no_tenant_data(owner: AsyncEngine) -> None:
    """Whoever adds a table says here why it needs no tenant."""
    query = text("""
        SELECT c.relname FROM pg_class c WHERE c.relkind IN ('r', 'p', 'v', 'm')
            AND c.relnamespace = 'public'::regnamespace AND NOT EXISTS (
                SELECT 1 FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id')
    """)
    async with owner.begin() as connection:
        names = set((await connection.execute(query)).scalars())
    # A called AE title names the tenant that holds it, as ``tenants`` does; only identity reads it.
    assert names <= {"alembic_version", "tenants", "signing_keys", "called_ae_titles"}


async def test_views_use_the_rights_of_the_caller(owner: AsyncEngine) -> None:
    """A view with its owner's rights would go around row-level security."""
    query = text("""
        SELECT relname FROM pg_class WHERE relkind IN ('v', 'm') AND relnamespace = 'public'::regnamespace
            AND NOT coalesce(reloptions, '{}') @> '{security_invoker=true}'
    """)
    async with owner.begin() as connection:
        assert (await connection.execute(query)).all() == []


@pytest.mark.parametrize("service", SERVICES)
async def test_services_own_nothing_and_bypass_nothing(backing: Backing, owner: AsyncEngine, service: str) -> None:
    """A service that is broken into can't switch the guard off."""
    engine = create_engine(backing.database_url(service))
    query = text("""
        SELECT rolsuper, rolbypassrls, rolcreaterole, rolcreatedb,
            (SELECT count(*) FROM pg_class WHERE relowner = r.oid) AS tables,
            (SELECT count(*) FROM pg_proc WHERE proowner = r.oid) AS functions,
            (SELECT count(*) FROM pg_auth_members WHERE member = r.oid) AS memberships,
            has_schema_privilege(r.oid, 'public', 'CREATE') AS creates
        FROM pg_roles r WHERE rolname = :name
    """)
    try:
        async with engine.begin() as connection:
            name = (await connection.execute(text("SELECT current_user"))).scalar_one()
        async with owner.begin() as connection:
            row = (await connection.execute(query, {"name": name})).one()
    finally:
        await engine.dispose()
    assert not any(row), row


async def test_audit_records_can_only_be_added(owner: AsyncEngine) -> None:
    """Not even the audit service can change or remove what it has written."""
    query = text("""
        SELECT grantee, privilege_type FROM information_schema.role_table_grants
        WHERE table_name = 'audit_records' AND grantee LIKE 'lightbox\\_%' AND grantee <> current_user
    """)
    async with owner.begin() as connection:
        rows = {tuple(row) for row in await connection.execute(query)}
    assert rows == {("lightbox_audit", "SELECT"), ("lightbox_audit", "INSERT")}


@pytest.mark.parametrize("name", ["system", "", "a", "North", "north/../south", "n" * 40, "-north", "north-"])
def test_only_tenants_have_buckets(name: str) -> None:
    """A name from outside must not become another bucket's."""
    with pytest.raises(InvalidTenant):
        bucket_name("lightbox", name)


async def test_nobody_inherits_the_sight_of_the_searching_functions(owner: AsyncEngine) -> None:
    """The roles of these functions see all tenants' rows; whoever inherited one would, too."""
    heirs = text(
        "SELECT member.rolname FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid "
        "JOIN pg_roles member ON member.oid = m.member "
        "WHERE r.rolname IN ('lightbox_search', 'lightbox_nodes') AND m.inherit_option"
    )
    async with owner.begin() as connection:
        assert (await connection.execute(heirs)).all() == []


async def test_not_everybody_may_call_what_sees_more_than_its_caller(owner: AsyncEngine) -> None:
    """A function that runs with its owner's sight is for the services that were named, never for PUBLIC."""
    query = text("""
        SELECT proname FROM pg_proc
        WHERE pronamespace = 'public'::regnamespace AND prosecdef
            AND (proacl IS NULL OR EXISTS (SELECT 1 FROM aclexplode(proacl) WHERE grantee = 0))
    """)
    async with owner.begin() as connection:
        assert (await connection.execute(query)).all() == []
