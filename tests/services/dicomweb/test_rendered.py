"""Rendered images and thumbnails: what people see in a list."""

import asyncio

import numpy as np
import pytest
import simplejpeg

from tests.services.dicomweb.archive import UNDECODABLE, Archive, changed, sample
from tests.services.dicomweb.conftest import Sample, Service, named


async def test_every_image_is_shown(service: Service, samples: list[Sample]) -> None:
    """A blank or broken thumbnail hides what is in a series."""
    shown = 0
    for one in samples:
        with service.http(one.tenant, Accept="image/jpeg") as http:
            response = await asyncio.to_thread(http.get, f"{one.stored.path}/rendered?viewport=256,256")
        if one.stored.header.frames is None:
            assert response.status_code == 406, one.name
            continue
        if response.status_code != 200:
            assert one.name in UNDECODABLE, (one.name, response.text)
            assert response.status_code == 406
            continue
        image = simplejpeg.decode_jpeg(response.content)
        assert max(image.shape[:2]) <= 256
        if min(one.stored.header.dicom["00280010"]["Value"][0], one.stored.header.dicom["00280011"]["Value"][0]) > 3:
            assert np.ptp(image) > 20, one.name
        shown += 1
    assert shown > 50


async def test_a_series_and_a_study_are_shown_by_their_middle(service: Service, tenant: str, archive: Archive) -> None:
    """The first slice of a head is air."""
    files = [changed("CT_small.dcm", SOPInstanceUID=f"1.2.3.{n}", InstanceNumber=n) for n in (1, 2, 3)]
    dark = changed("CT_small.dcm", SOPInstanceUID="1.2.3.2", InstanceNumber=2, WindowCenter="5000", WindowWidth="1")
    stored = await archive.store(tenant, [files[2], dark, files[0]])
    header = stored[0].header
    with service.http(tenant, Accept="image/jpeg") as http:
        middle = await asyncio.to_thread(http.get, f"{stored[1].path}/thumbnail")
        for level in (f"/studies/{header.study_uid}", f"/studies/{header.study_uid}/series/{header.series_uid}"):
            response = await asyncio.to_thread(http.get, f"{level}/thumbnail")
            assert response.headers["content-type"] == "image/jpeg"
            assert response.content == middle.content
        assert max(simplejpeg.decode_jpeg(middle.content).shape[:2]) <= 128


async def test_window_and_quality(service: Service, tenant: str, archive: Archive) -> None:
    """Bone and soft tissue are two windows of one image."""
    (stored,) = await archive.store(tenant, [sample("CT_small.dcm")])
    place = f"{stored.path}/frames/1/rendered"
    with service.http(tenant, Accept="image/jpeg") as http:
        bright = await asyncio.to_thread(http.get, f"{place}?window=-900,100,linear")
        dark = await asyncio.to_thread(http.get, f"{place}?window=3000,100,linear")
        assert simplejpeg.decode_jpeg(bright.content).mean() > simplejpeg.decode_jpeg(dark.content).mean() + 50
        small = await asyncio.to_thread(http.get, f"{place}?quality=10")
        large = await asyncio.to_thread(http.get, f"{place}?quality=100")
        assert len(small.content) < len(large.content)


@pytest.mark.parametrize(
    ("query", "accept", "status"),
    [
        ("viewport=0,0", "image/jpeg", 400),
        ("viewport=100", "image/jpeg", 400),
        ("viewport=99999,99999", "image/jpeg", 400),
        ("viewport=a,b", "image/jpeg", 400),
        ("window=1", "image/jpeg", 400),
        ("window=nan,1,linear", "image/jpeg", 400),
        ("window=1,0,linear", "image/jpeg", 400),
        ("window=1,10,sigmoid", "image/jpeg", 400),
        ("quality=0", "image/jpeg", 400),
        ("quality=101", "image/jpeg", 400),
        ("", "image/*", 200),
        ("", "image/avif,image/webp,*/*;q=0.8", 200),
        ("accept=image/jpeg", "application/json", 200),
        ("", "image/png", 406),
        ("", "application/dicom", 406),
    ],
)
async def test_parameters(service: Service, samples: list[Sample], query: str, accept: str, status: int) -> None:
    """A parameter that can't be followed is refused, not ignored: another window is another finding."""
    one = named(samples, "CT_small.dcm")
    with service.http(one.tenant, Accept=accept) as http:
        response = await asyncio.to_thread(http.get, f"{one.stored.path}/rendered?{query}")
        assert response.status_code == status, response.text
