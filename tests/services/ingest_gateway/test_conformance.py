"""STOW-RS as PS3.18 section 10.5 and annex I have it, line by line of what top servers get right (lines 18 to 21).

Line 22, that a search finds what was answered with 200, needs the catalog: ``tests/system/test_stow.py``.
"""

from pathlib import Path
from typing import Any

import pytest

from libs.dicom import read_header
from libs.objects import ObjectStore
from tests.services.ingest_gateway.gateway import PUBLIC_URL, Gateway, running_gateway, settings_for
from tests.services.ingest_gateway.instances import (
    FAILED,
    FAILURE_REASON,
    OTHER_FAILURES,
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
from tests.services.ingest_gateway.test_metadata import PIXELS, body, kept, model
from tests.services.ingest_gateway.test_metadata import TYPE as METADATA
from tests.support.backing import Backing
from tests.support.tokens import TokenIssuer

NOISE = b"\x89PNG" + bytes(500)
ANSWER = "application/dicom+json"
PROBLEM = "application/problem+json"


@pytest.fixture
def objects(backing: Backing) -> ObjectStore:
    return ObjectStore(backing.s3_endpoint, "us-east-1", backing.s3_access_key, backing.s3_secret_key, "lightbox")


@pytest.mark.parametrize(
    ("content", "content_type", "status", "answer_type"),
    [
        (lambda: multipart(make_series(2)), TYPE, 200, ANSWER),
        (make_instance, "application/dicom", 200, ANSWER),
        (lambda: body([model()], [PIXELS]), METADATA, 200, ANSWER),
        (lambda: multipart([*make_series(1), NOISE]), TYPE, 202, ANSWER),
        (lambda: multipart([NOISE, NOISE]), TYPE, 409, ANSWER),
        (lambda: multipart(make_series(1))[:-20], TYPE, 400, PROBLEM),
        (lambda: multipart(make_series(1)), "multipart/related; type=application/dicom", 400, PROBLEM),
        (lambda: multipart(make_series(1)), TYPE.replace("dicom", "dicom+xml"), 415, PROBLEM),
        (make_instance, "application/pdf", 415, PROBLEM),
        (lambda: multipart([b""] * 10_001), TYPE, 413, PROBLEM),
    ],
    ids=["all", "one", "metadata", "some", "none", "cut", "no boundary", "xml", "type", "too many"],
)
async def test_18_the_status_says_what_became_of_the_request(
    gateway: Gateway, tenant: str, content: Any, content_type: str, status: int, answer_type: str
) -> None:
    response = await gateway.post(tenant, content(), content_type)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == answer_type


async def test_18_a_dependency_that_is_away_is_503_with_retry_after(
    backing: Backing, token_issuer: TokenIssuer, tenant: str, tmp_path: Path
) -> None:
    away = {"s3_endpoint": "http://127.0.0.1:9", "store_timeout": 5}
    with running_gateway(settings_for(backing, token_issuer, tmp_path, **away), token_issuer) as gateway:
        response = await gateway.post(tenant, multipart(make_series(1)), TYPE)
        assert response.status_code == 503
        assert int(response.headers["retry-after"]) > 0
        assert gateway.leftovers() == []


async def test_18_the_answer_has_what_annex_i_asks_for(gateway: Gateway, tenant: str) -> None:
    good, foreign = make_instance(), make_instance()
    header = read_header(good)
    response = await gateway.post(tenant, multipart([good, foreign, NOISE]), TYPE, study=header.study_uid)
    assert response.status_code == 202
    answer = response.json()
    assert list(answer) == sorted(answer)
    study = f"{PUBLIC_URL}/dicom-web/studies/{header.study_uid}"
    assert answer["00081190"] == {"vr": "UR", "Value": [study]}
    (stored,), (failed,), (other,) = (answer[tag]["Value"] for tag in (STORED, FAILED, OTHER_FAILURES))
    instance = f"{study}/series/{header.series_uid}/instances/{header.sop_instance_uid}"
    assert stored["00081150"] == {"vr": "UI", "Value": [header.sop_class_uid]}
    assert stored["00081155"] == {"vr": "UI", "Value": [header.sop_instance_uid]}
    assert stored["00081190"] == {"vr": "UR", "Value": [instance]}
    assert failed["00081150"] == {"vr": "UI", "Value": [header.sop_class_uid]}
    assert failed["00081155"] == {"vr": "UI", "Value": [read_header(foreign).sop_instance_uid]}
    assert failed[FAILURE_REASON] == {"vr": "US", "Value": [0xA900]}
    assert other[FAILURE_REASON] == {"vr": "US", "Value": [0xC000]}
    assert UID not in other, "what can't be told by its UID has a sequence of its own"


async def test_18_a_coercion_is_in_original_attributes(gateway: Gateway, tenant: str) -> None:
    sent = model(
        x00080005={"vr": "CS", "Value": ["ISO_IR 100"]}, x00100010={"vr": "PN", "Value": [{"Alphabetic": "Müller"}]}
    )
    response = await gateway.post(tenant, body([sent], [PIXELS]), METADATA)
    assert response.status_code == 202
    (stored,) = response.json()[STORED]["Value"]
    assert stored[WARNING_REASON] == {"vr": "US", "Value": [0xB000]}
    (original,) = stored["04000561"]["Value"]
    assert original["04000550"]["Value"] == [{"00080005": sent["00080005"]}]
    assert set(original) == {"04000550", "04000562", "04000563", "04000564", "04000565"}


async def test_19_one_bad_part_never_fails_the_batch(gateway: Gateway, tenant: str, objects: ObjectStore) -> None:
    good = make_series(3)
    bad = [NOISE, b"", make_instance(pixels=4096)[:-2000], bytes(128) + b"DICM"]
    mixed = [good[0], *bad[:2], good[1], *bad[2:], good[2]]
    response = await gateway.post(tenant, multipart(mixed), TYPE)
    assert response.status_code == 202
    assert values(response.json(), STORED, SHA256) == [sha256(file) for file in good]
    assert len(values(response.json(), FAILED, FAILURE_REASON)) == len(bad)
    assert sorted((await kept(objects, tenant)).values()) == sorted(good), "a refused part leaves no trace in a pack"


async def test_20_a_duplicate_never_costs_what_was_there(gateway: Gateway, tenant: str, objects: ObjectStore) -> None:
    first = make_instance(uid=new_uid())
    header = read_header(first)
    other = make_instance(
        study=header.study_uid, series=header.series_uid, uid=header.sop_instance_uid, note="other bytes"
    )
    assert (await gateway.post(tenant, multipart([first]), TYPE)).status_code == 200
    again = await gateway.post(tenant, multipart([first]), TYPE)
    assert (again.status_code, values(again.json(), STORED, WARNING_REASON)) == (200, [None])
    differing = await gateway.post(tenant, multipart([first, other]), TYPE)
    assert differing.status_code == 202
    assert values(differing.json(), STORED, WARNING_REASON) == [None, 0xB000]
    packs = [entry.key async for entry in objects.list(tenant, "packs/")]
    contents = b"".join([await objects.get(tenant, key) for key in packs])
    assert first in contents
    assert other in contents


async def test_21_an_instance_of_another_study_fails_alone(gateway: Gateway, tenant: str) -> None:
    right, wrong = make_series(2), make_instance()
    study = read_header(right[0]).study_uid
    response = await gateway.post(tenant, multipart([right[0], wrong, right[1]]), TYPE, study=study)
    assert response.status_code == 202
    assert values(response.json(), FAILED, FAILURE_REASON) == [0xA900]
    assert values(response.json(), FAILED, UID) == [read_header(wrong).sop_instance_uid]
    assert values(response.json(), STORED, SHA256) == [sha256(file) for file in right]
