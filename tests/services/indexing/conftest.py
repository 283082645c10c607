"""The service's resources on real servers, and a look at the whole catalog of a tenant."""

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from services.indexing.resources import Resources, open_resources
from services.indexing.settings import Settings
from tests.support.backing import Backing
from tests.support.catalog import read_catalog

Dump = Callable[[str], Awaitable[dict[str, list[dict[str, Any]]]]]


@pytest.fixture(scope="session")
def settings(backing: Backing) -> Settings:
    """The service's settings for the servers of the run."""
    return Settings(
        database_url=backing.database_url("indexing"),
        kafka_bootstrap=backing.kafka_bootstrap,
        s3_endpoint=backing.s3_endpoint,
        s3_access_key=backing.s3_access_key,
        s3_secret_key=backing.s3_secret_key,
    )


@pytest.fixture
async def resources(settings: Settings) -> AsyncIterator[Resources]:
    """The service's resources."""
    async with open_resources(settings) as opened:
        yield opened


@pytest.fixture
def dump(resources: Resources) -> Dump:
    """Reads all catalog rows of a tenant, table by table."""

    return partial(read_catalog, resources.engine)
