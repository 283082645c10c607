"""If this check slept, one query without a tenant could show a hospital another hospital's patients."""

import pytest

from tools.lint.tenant_scope import findings


@pytest.mark.parametrize(
    "source",
    [
        "async with engine.begin() as c: pass",
        "async with self._engine.connect() as c: pass",
        "async with resources.engine.begin() as c: pass",
        "from sqlalchemy.ext.asyncio import create_async_engine",
        "import asyncpg",
    ],
)
def test_a_way_around_the_tenant_is_found(source: str) -> None:
    wrapped = "async def f():\n " + source if source.startswith("async with") else source
    assert list(findings(wrapped, "x.py"))


@pytest.mark.parametrize(
    "source",
    [
        "async def f():\n async with tenant_transaction(engine, tenant) as c: pass",
        "from libs.tenancy import create_engine",
        "async def f():\n async with engine.begin() as c:  # not tenant data: signing keys\n  pass",
    ],
)
def test_the_tenant_helper_is_accepted(source: str) -> None:
    assert not list(findings(source, "x.py"))
