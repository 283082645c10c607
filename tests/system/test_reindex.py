"""A lost database must not mean lost studies: the catalog of the whole stack from the buckets alone."""

import pytest

from deploy.local.credentials import load_credentials
from deploy.local.home import Home, read_json
from deploy.local.provision import database_url
from libs.tenancy import create_engine
from tests.support.catalog import digest, read_catalog
from tests.support.shown import Shown, lightbox

pytestmark = pytest.mark.system


async def test_a_dropped_catalog_comes_back_by_the_command(shown: Shown) -> None:
    home = Home(shown.home)
    url = database_url(load_credentials(home), read_json(home.ports_file)["postgres"], "indexing")
    engine = create_engine(url)
    try:
        before = {tenant: await read_catalog(engine, tenant) for tenant in ("north", "south")}
        lightbox(shown.home, "reindex", "--drop", "--yes")
        after = {tenant: await read_catalog(engine, tenant) for tenant in ("north", "south")}
    finally:
        await engine.dispose()
    for tenant, catalog in before.items():
        assert len(catalog["studies"]) >= 10
        assert digest(after[tenant]) == digest(catalog), tenant
