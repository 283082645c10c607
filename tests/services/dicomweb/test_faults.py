"""What happens while a server is away: a clear answer, and life goes on when it is back."""

import asyncio

import httpx
import pytest

from services.dicomweb.settings import Settings
from tests.services.dicomweb.conftest import Sample, Service, named, serving


@pytest.mark.parametrize(
    "away",
    [
        {"s3_endpoint": "http://127.0.0.1:9"},
        {"database_url": "postgresql+asyncpg://nobody:x@127.0.0.1:9/none"},
    ],
)
async def test_a_store_that_is_away(
    service: Service, samples: list[Sample], settings: Settings, tmp_path: object, away: dict[str, str]
) -> None:
    """The viewer is told to try again, and the service lives."""
    one = named(samples, "CT_small.dcm")
    changed = Settings(**{**settings.model_dump(), **away, "spool_dir": tmp_path})
    headers = {"Accept": "*/*", **service.tokens.header_for(one.tenant, ("dicom:read",))}
    with serving(changed) as url, httpx.Client(base_url=url, headers=headers, timeout=30, trust_env=False) as http:
        series = one.stored.path.partition("/instances")[0]
        paths = (one.stored.path, f"{one.stored.path}/frames/1", series, f"{series}/metadata", f"{series}/thumbnail")
        answers = await asyncio.gather(*(asyncio.to_thread(http.get, f"/dicom-web{path}") for path in paths))
        for response in answers:
            assert response.status_code == 503, response.text
            assert response.headers["retry-after"]
        assert (await asyncio.to_thread(http.get, "/health/live")).status_code == 200
        assert (await asyncio.to_thread(http.get, "/health/ready")).status_code == 503


async def test_reading_goes_on_while_kafka_is_away(
    service: Service, samples: list[Sample], settings: Settings, tmp_path: object
) -> None:
    """Images are shown; their records wait in the spool."""
    one = named(samples, "CT_small.dcm")
    changed = Settings(**{**settings.model_dump(), "kafka_bootstrap": "127.0.0.1:9", "spool_dir": tmp_path})
    headers = {
        "Accept": "application/dicom; transfer-syntax=*",
        **service.tokens.header_for(one.tenant, ("dicom:read",)),
    }
    with serving(changed) as url, httpx.Client(base_url=url, headers=headers, timeout=30, trust_env=False) as http:
        response = await asyncio.to_thread(http.get, f"/dicom-web{one.stored.path}")
        assert response.content == one.stored.data
        spooled = [line for path in changed.spool_dir.rglob("*.spool") for line in path.read_text().splitlines()]
        assert len(spooled) == 1
        assert one.stored.header.sop_instance_uid in spooled[0]
