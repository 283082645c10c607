"""A person who saves something looks for it at once: the answer waits for the catalog, but not for long."""

import asyncio
import time

import pytest
from sqlalchemy import text

from libs.dicom import read_header
from libs.tenancy import create_engine, tenant_transaction
from tests.services.ingest_gateway.gateway import Gateway
from tests.services.ingest_gateway.instances import (
    STORED,
    TYPE,
    WARNING_REASON,
    make_instance,
    multipart,
    sha256,
    values,
)
from tests.support.backing import Backing


async def index(backing: Backing, tenant: str, file: bytes) -> None:
    """Makes the catalog's rows for an instance, as indexing does."""
    header = read_header(file)
    engine = create_engine(backing.database_url("indexing"))
    statements = [
        "INSERT INTO patients (tenant_id, patient_id) VALUES (:tenant, :uid)",
        """INSERT INTO studies (tenant_id, study_uid, patient_key, attributes, received_at, updated_at)
           SELECT :tenant, :study, id, '{}', now(), now() FROM patients WHERE patient_id = :uid""",
        """INSERT INTO series (tenant_id, study_key, series_uid, attributes, received_at, updated_at)
           SELECT :tenant, id, :series, '{}', now(), now() FROM studies WHERE study_uid = :study""",
        """INSERT INTO packs (tenant_id, key, size, index_offset, index_length, stored)
           VALUES (:tenant, :uid, 1, 0, 1, now())""",
        """INSERT INTO instances (tenant_id, sop_uid, series_key, pack_key, byte_offset, byte_length, sop_class_uid,
                                  transfer_syntax, sha256)
           SELECT :tenant, :uid, series.id, packs.id, 0, 1, '1.2', '1.2', decode(:sha256, 'hex')
           FROM series, packs WHERE series_uid = :series AND key = :uid""",
    ]
    values = {
        "tenant": tenant,
        "uid": header.sop_instance_uid,
        "study": header.study_uid,
        "series": header.series_uid,
        "sha256": sha256(file),
    }
    async with tenant_transaction(engine, tenant) as connection:
        for statement in statements:
            query = text(statement)
            await connection.execute(query, {name: values[name] for name in query.compile().params})
    await engine.dispose()


async def test_a_persons_answer_waits_for_the_catalog(gateway: Gateway, backing: Backing, tenant: str) -> None:
    file = make_instance()
    sending = asyncio.create_task(gateway.post(tenant, multipart([file]), TYPE, subject="user:anna"))
    await asyncio.sleep(0.5)
    assert not sending.done()
    await index(backing, tenant, file)
    begun = time.monotonic()
    response = await sending
    assert response.status_code == 200
    assert time.monotonic() - begun < 0.5


@pytest.mark.parametrize(("subject", "least", "most"), [("user:anna", 1.0, 3.0), ("client:edge-1", 0.0, 1.0)])
async def test_the_wait_is_bounded_and_machines_do_not_wait(
    gateway: Gateway, tenant: str, subject: str, least: float, most: float
) -> None:
    await gateway.post(tenant, multipart([make_instance()]), TYPE)  # the first object of a bucket takes its time
    begun = time.monotonic()
    response = await gateway.post(tenant, multipart([make_instance()]), TYPE, subject=subject)
    assert response.status_code == 200
    assert least <= time.monotonic() - begun < most


async def test_other_bytes_under_a_known_uid_are_kept_with_a_warning(
    gateway: Gateway, backing: Backing, tenant: str
) -> None:
    first = make_instance()
    header = read_header(first)
    other = make_instance(
        study=header.study_uid, series=header.series_uid, uid=header.sop_instance_uid, note="changed afterwards"
    )
    assert (await gateway.post(tenant, multipart([first]), TYPE)).status_code == 200
    await index(backing, tenant, first)
    differing = await gateway.post(tenant, multipart([other]), TYPE)
    assert differing.status_code == 202
    assert values(differing.json(), STORED, WARNING_REASON) == [0xB000]
    assert "other bytes" in values(differing.json(), STORED, "00091002")[0]
    same = await gateway.post(tenant, multipart([first]), TYPE)
    assert same.status_code == 200
