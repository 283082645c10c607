"""STOW-RS through the front door, with the catalog behind it."""

import gzip
import io
import time
from contextlib import closing

import httpx
import pydicom
import pytest

from libs.dicom import read_header
from tests.services.ingest_gateway.instances import STORED, TYPE, UID, make_series, multipart, values
from tests.services.ingest_gateway.test_metadata import PIXELS, body, model
from tests.services.ingest_gateway.test_metadata import TYPE as METADATA
from tests.support.system import SystemStack


@pytest.mark.parametrize("count", [1, 20])
def test_22_what_a_person_has_stored_is_found_by_the_next_search(stack: SystemStack, count: int) -> None:
    """A viewer saves a report and asks for it at once: an answer of 200 must not come before it can be found."""
    files = make_series(count, pixels=50_000)
    header = read_header(files[0])
    with closing(stack.browser("north", "rita")) as viewer:
        stored = viewer.post("/dicom-web/studies", content=multipart(files), headers={"Content-Type": TYPE})
        assert stored.status_code == 200, stored.text
        found = viewer.get(f"/dicom-web/studies/{header.study_uid}/instances", params={"limit": 100})
        assert found.status_code == 200
        told = set(values(stored.json(), STORED, UID))
        assert {item["00080018"]["Value"][0] for item in found.json()} == told
        again = viewer.get(
            stored.json()[STORED]["Value"][0]["00081190"]["Value"][0],
            headers={"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'},
        )
        assert again.status_code == 200, "the answer says where the instance is, and it is there"
        assert files[0] in again.content


def test_a_compressed_body_and_metadata_come_through_the_front_door(stack: SystemStack) -> None:
    sent = model()
    with stack.client("north") as client:
        answer: httpx.Response = client.post(
            "/dicom-web/studies",
            content=gzip.compress(body([sent], [PIXELS])),
            headers={"Content-Type": METADATA, "Content-Encoding": "gzip"},
        )
        assert answer.status_code == 200, answer.text
        place = answer.json()[STORED]["Value"][0]["00081190"]["Value"][0]
        accept = {"Accept": "application/dicom; transfer-syntax=*"}
        for _ in range(100):
            found = client.get(place, headers=accept)
            if found.status_code == 200:
                break
            time.sleep(0.1)
        assert pydicom.dcmread(io.BytesIO(found.content)).PixelData == bytes([1, 2, 3, 4])
