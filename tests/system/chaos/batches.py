"""What a hospital sends in one run. The other hospital sends other images under the same UIDs."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import Final

from pydicom import FileDataset, dcmread
from pydicom.uid import UID

from tests.support.ledger import data_set_hash
from tests.support.samples import sample

_SIDES: Final = (64, 64, 128, 128, 256, 384, 512)
"""Rows and columns of 16 bits: 8 to 512 kB."""


@dataclass(frozen=True)
class Image:
    """One Part 10 file.

    Attributes:
        study: Study Instance UID.
        series: Series Instance UID.
        instance: SOP Instance UID.
        content: the file.
        data_set: SHA-256 of its data set.
    """

    study: str
    series: str
    instance: str
    content: bytes
    data_set: str


@dataclass(frozen=True)
class Batch:
    """What one hospital sends, in loads that follow each other; an image is sent until it is acknowledged.

    Attributes:
        loads: the images of each association or request. Later loads repeat images of earlier ones, and hold other
            bytes under the UID of an earlier one.
        studies: the studies in it.
        own: the study that only this hospital has.
    """

    loads: Sequence[Sequence[Image]]
    studies: tuple[str, ...]
    own: str


def batch_of(run: int, tenant: str) -> Batch:
    """The batch of a hospital in a run; a run always gives the same."""
    shared, noise = random.Random(f"uids {run}"), random.Random(f"{tenant} {run}")
    study, own = (_uid(shared) for _ in range(2))
    series = [f"{study}.{number}" for number in (1, 2)]
    own = f"{own}.{1 + ('north', 'south').index(tenant)}"
    uids = [(series[number % 2], f"{series[number % 2]}.{number}") for number in range(shared.randint(4, 7))]
    images = [_image(tenant, (study, *uid), noise) for uid in uids]
    alone = _image(tenant, (own, f"{own}.1", f"{own}.1.1"), noise)
    half = len(images) // 2
    other = _image(tenant, (study, *uids[noise.randrange(half)]), noise)
    loads = [images[:half], [*images[half:], images[0]], [other, alone], [images[-1]]]
    return Batch(loads, (study, own), own)


def _uid(chance: random.Random) -> str:
    return f"2.25.{chance.getrandbits(100)}"


def _image(tenant: str, uids: tuple[str, str, str], noise: random.Random) -> Image:
    image = plain_image()
    side = noise.choice(_SIDES)
    image.PatientName, image.PatientID = f"Chaos^{tenant.title()}", f"CHAOS-{tenant}"
    image.StudyInstanceUID, image.SeriesInstanceUID, image.SOPInstanceUID = map(UID, uids)
    image.file_meta.MediaStorageSOPInstanceUID = UID(uids[2])
    image.Rows = image.Columns = side
    image.PixelData = noise.randbytes(side * side * 2)
    buffer = BytesIO()
    image.save_as(buffer)
    content = buffer.getvalue()
    return Image(*uids, content, data_set_hash(content))


@cache
def _sample() -> bytes:
    return sample("MR_small.dcm").path.read_bytes()


def plain_image() -> FileDataset:
    """A real image without what DCMTK leaves out when it sends: group lengths and trailing padding."""
    image = dcmread(BytesIO(_sample()))
    for tag in [tag for tag in image.keys() if tag.element == 0 or tag == 0xFFFCFFFC]:  # noqa: SIM118
        del image[tag]
    return image
