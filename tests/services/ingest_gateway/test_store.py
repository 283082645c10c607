"""Storing: what a sender was told is stored is there, byte for byte, in its own tenant, and announced."""

import asyncio
import gzip
import io
import zipfile
from pathlib import Path

import httpx
import pytest

from libs.dicom import DicomError, read_header
from libs.events import AUDIT_RECORDED, INSTANCES_STORED
from libs.objects import ObjectStore
from libs.packs import read_index, verify_pack
from tests.services.ingest_gateway.events import events_of
from tests.services.ingest_gateway.gateway import PUBLIC_URL, Gateway
from tests.services.ingest_gateway.instances import (
    FAILED,
    FAILURE_REASON,
    SHA256,
    STORED,
    TYPE,
    UID,
    WARNING_REASON,
    make_instance,
    make_series,
    multipart,
    new_uid,
    sha256,
    values,
)
from tests.support.backing import Backing
from tests.support.samples import every_file


@pytest.fixture
def objects(backing: Backing) -> ObjectStore:
    return ObjectStore(backing.s3_endpoint, "us-east-1", backing.s3_access_key, backing.s3_secret_key, "lightbox")


async def keys(objects: ObjectStore, tenant: str) -> list[str]:
    return [entry.key async for entry in objects.list(tenant, "packs/")]


async def stored_hashes(objects: ObjectStore, tenant: str) -> dict[str, str]:
    """SOP Instance UID → SHA-256 of the bytes in the packs, read as any unzip tool reads them."""
    found = {}
    for key in await keys(objects, tenant):
        with zipfile.ZipFile(io.BytesIO(await objects.get(tenant, key))) as pack:
            assert pack.testzip() is None
            found.update({n.removesuffix(".dcm"): sha256(pack.read(n)) for n in pack.namelist() if n.endswith(".dcm")})
    return found


async def test_a_series_is_stored_announced_and_audited(
    gateway: Gateway, backing: Backing, tenant: str, objects: ObjectStore, tmp_path: Path
) -> None:
    files = make_series(5)
    header = read_header(files[0])
    response = await gateway.post(tenant, multipart(files), TYPE, study=header.study_uid)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/dicom+json"
    answer = response.json()
    assert values(answer, STORED, SHA256) == [sha256(file) for file in files]
    assert answer["00081190"]["Value"] == [f"{PUBLIC_URL}/dicom-web/studies/{header.study_uid}"]
    series = f"{PUBLIC_URL}/dicom-web/studies/{header.study_uid}/series/{header.series_uid}"
    assert values(answer, STORED, "00081190")[0] == f"{series}/instances/{header.sop_instance_uid}"

    (event,) = await events_of(backing.kafka_bootstrap, INSTANCES_STORED, tenant, 1)
    stored = event.data
    assert (stored.study_uid, stored.series_uid, stored.instance_count) == (header.study_uid, header.series_uid, 5)
    assert stored.source == "client:edge-1"
    content = await objects.get(tenant, stored.pack_key)
    assert len(content) == stored.pack_size
    index = read_index(await objects.get_range(tenant, stored.pack_key, stored.index_offset, stored.index_length))
    for instance, file in zip(index.instances, files, strict=True):
        assert content[instance.offset : instance.offset + instance.length] == file
    pack = tmp_path / "pack.zip"
    pack.write_bytes(content)
    assert len(verify_pack(pack).instances) == 5
    unzip = await asyncio.create_subprocess_exec("unzip", "-tq", pack)
    assert await unzip.wait() == 0

    (record,) = await events_of(backing.kafka_bootstrap, AUDIT_RECORDED, tenant, 1)
    audit = record.data
    assert (audit.action, audit.outcome, audit.study_uid, audit.instance_count, audit.actor, audit.address) == (
        "store",
        "success",
        header.study_uid,
        5,
        "client:edge-1",
        "127.0.0.1",
    )
    assert gateway.leftovers() == []


async def test_every_real_file_is_kept_byte_for_byte(gateway: Gateway, tenant: str, objects: ObjectStore) -> None:
    expected: dict[str, set[str]] = {}
    files = [path for path in every_file() if path.stat().st_size]
    unreadable = 0
    for path in files:
        try:
            header = read_header(path)
        except DicomError:
            unreadable += 1
        else:
            expected.setdefault(header.sop_instance_uid, set()).add(sha256(path.read_bytes()))
    response = await gateway.post(tenant, multipart(path.read_bytes() for path in files), TYPE)
    answer = response.json()
    assert len(values(answer, STORED, UID)) == len(files) - unreadable
    assert len(values(answer, FAILED, FAILURE_REASON)) == unreadable
    told = set(zip(values(answer, STORED, UID), values(answer, STORED, SHA256), strict=True))
    assert told == {(uid, digest) for uid, digests in expected.items() for digest in digests}
    kept = set()
    for key in await keys(objects, tenant):
        with zipfile.ZipFile(io.BytesIO(await objects.get(tenant, key))) as pack:
            names = [name for name in pack.namelist() if name.endswith(".dcm")]
            kept |= {(name.removesuffix(".dcm"), sha256(pack.read(name))) for name in names}
            assert gzip.decompress(pack.read("index.json.gz"))
    assert kept == told


async def test_a_retry_finds_the_pack_and_announces_it_again(
    gateway: Gateway, backing: Backing, tenant: str, objects: ObjectStore
) -> None:
    body = multipart(make_series(3))
    first = await gateway.post(tenant, body, TYPE)
    before = {key: await objects.get(tenant, key) for key in await keys(objects, tenant)}
    second = await gateway.post(tenant, body, TYPE)
    assert (first.status_code, second.status_code) == (200, 200)
    assert first.json() == second.json()
    assert {key: await objects.get(tenant, key) for key in await keys(objects, tenant)} == before
    events = await events_of(backing.kafka_bootstrap, INSTANCES_STORED, tenant, 2)
    assert len(events) == 2
    assert events[0].data == events[1].data


async def test_the_same_request_twice_at_once_is_stored_once(
    gateway: Gateway, tenant: str, objects: ObjectStore
) -> None:
    body = multipart(make_series(3))
    answers = await asyncio.gather(*(gateway.post(tenant, body, TYPE) for _ in range(4)))
    assert [answer.status_code for answer in answers] == [200] * 4
    assert len(await keys(objects, tenant)) == 1


async def test_one_bad_part_does_not_cost_the_others(gateway: Gateway, tenant: str, objects: ObjectStore) -> None:
    good = make_series(2)
    slash = make_instance(uid="1.2.3").replace(b"1.2.3\x00", b"1.2/3\x00")
    noise = b"\x89PNG" + bytes(range(256)) * 20
    cut = make_instance(pixels=4096)[:-2000]
    bare = bytes(128) + b"DICM"
    response = await gateway.post(tenant, multipart([good[0], noise, slash, b"", cut, bare, good[1]]), TYPE)
    assert response.status_code == 202
    answer = response.json()
    assert values(answer, STORED, SHA256) == [sha256(file) for file in good]
    reasons = values(answer, FAILED, FAILURE_REASON)
    assert len(reasons) == 5
    assert reasons[0] == 0xC000
    assert all(reasons)
    assert set(await stored_hashes(objects, tenant)) == {read_header(file).sop_instance_uid for file in good}


async def test_nothing_stored_is_409_with_a_reason_each(gateway: Gateway, backing: Backing, tenant: str) -> None:
    response = await gateway.post(tenant, multipart([b"no DICOM", b"nor this"]), TYPE)
    assert response.status_code == 409
    assert values(response.json(), FAILED, FAILURE_REASON) == [0xC000, 0xC000]
    assert values(response.json(), FAILED, UID) == [None, None]
    (record,) = await events_of(backing.kafka_bootstrap, AUDIT_RECORDED, tenant, 1)
    assert (record.data.action, record.data.outcome) == ("refuse", "serious-failure")


async def test_an_instance_of_another_study_fails_and_the_rest_goes_on(gateway: Gateway, tenant: str) -> None:
    right, wrong = make_instance(), make_instance()
    response = await gateway.post(tenant, multipart([wrong, right]), TYPE, study=read_header(right).study_uid)
    assert response.status_code == 202
    assert values(response.json(), FAILED, FAILURE_REASON) == [0xA900]
    assert values(response.json(), FAILED, UID) == [read_header(wrong).sop_instance_uid]
    assert values(response.json(), STORED, UID) == [read_header(right).sop_instance_uid]


async def test_private_and_unknown_sop_classes_are_stored(gateway: Gateway, tenant: str) -> None:
    files = [make_instance(sop_class="1.3.12.2.1107.5.9.1"), make_instance(sop_class="1.2.3.4.5.6.7")]
    response = await gateway.post(tenant, multipart(files), TYPE)
    assert response.status_code == 200
    assert values(response.json(), STORED, "00081150") == ["1.3.12.2.1107.5.9.1", "1.2.3.4.5.6.7"]


async def test_identical_duplicates_are_stored_once_and_differing_ones_both(
    gateway: Gateway, backing: Backing, tenant: str, objects: ObjectStore
) -> None:
    study, series, uid = new_uid(), new_uid(), new_uid()
    first = make_instance(study=study, series=series, uid=uid)
    other = make_instance(study=study, series=series, uid=uid, note="changed afterwards")
    response = await gateway.post(tenant, multipart([first, first, other]), TYPE)
    assert response.status_code == 202
    answer = response.json()
    assert values(answer, STORED, SHA256) == [sha256(first), sha256(first), sha256(other)]
    assert values(answer, STORED, WARNING_REASON) == [None, None, 0xB000]
    assert len(await keys(objects, tenant)) == 2
    events = await events_of(backing.kafka_bootstrap, INSTANCES_STORED, tenant, 2)
    index = read_index(
        await objects.get_range(
            tenant, events[0].data.pack_key, events[0].data.index_offset, events[0].data.index_length
        )
    )
    assert index.instances[0].sha256 == sha256(first), "who came first must be announced first"


async def test_a_single_instance_without_multipart(gateway: Gateway, tenant: str, objects: ObjectStore) -> None:
    file = make_instance(pixels=3 << 20)
    response = await gateway.post(tenant, file, "application/dicom")
    assert response.status_code == 200
    assert list((await stored_hashes(objects, tenant)).values()) == [sha256(file)]


async def test_many_series_and_studies_in_one_request(gateway: Gateway, tenant: str, objects: ObjectStore) -> None:
    files = [file for _ in range(4) for file in make_series(3)]
    response = await gateway.post(tenant, multipart(files), TYPE)
    assert response.status_code == 200
    assert response.json()["00081190"] == {"vr": "UR"}, "there is no one study to point at"
    assert len(await keys(objects, tenant)) == 4
    assert sorted((await stored_hashes(objects, tenant)).values()) == sorted(sha256(file) for file in files)


async def test_the_tenant_comes_from_the_token_alone(
    gateway: Gateway, tenant_pair: tuple[str, str], objects: ObjectStore
) -> None:
    own, foreign = tenant_pair
    chosen = {"X-Tenant": foreign, "X-Lightbox-Tenant": foreign, "Lightbox-Tenant": foreign}
    response = await gateway.post(own, multipart(make_series(1)), TYPE, headers=chosen)
    assert response.status_code == 200
    assert len(await keys(objects, own)) == 1
    assert await keys(objects, foreign) == []


async def test_two_tenants_store_the_same_uids_apart(
    gateway: Gateway, tenant_pair: tuple[str, str], objects: ObjectStore
) -> None:
    study, series, uid = new_uid(), new_uid(), new_uid()
    files = [make_instance(study=study, series=series, uid=uid, note=note) for note in ("north", "south")]
    for tenant, file in zip(tenant_pair, files, strict=True):
        response = await gateway.post(tenant, multipart([file]), TYPE)
        assert response.status_code == 200
        assert values(response.json(), STORED, WARNING_REASON) == [None]
    for tenant, file in zip(tenant_pair, files, strict=True):
        assert await stored_hashes(objects, tenant) == {uid: sha256(file)}


async def test_the_contract_is_described(gateway: Gateway) -> None:
    async with httpx.AsyncClient(verify=False) as client:
        described = (await client.get(f"{gateway.url}/openapi.json")).json()
    assert set(described["paths"]) >= {"/dicom-web/studies", "/dicom-web/studies/{study}"}
    assert "multipart/related" in described["paths"]["/dicom-web/studies"]["post"]["requestBody"]["content"]
