"""The index of a pack: what its last entry says."""

import gzip
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, cast

import orjson

from libs.dicom.pixels import FrameTable
from libs.dicom.walk import DicomJson
from libs.dicom.identifiers import is_uid

VERSION: Final = 1
LARGEST_INDEX: Final = 512 * 1024 * 1024
"""Bytes of an index after decompression that are accepted."""


class InvalidPack(ValueError):
    """The bytes are not a pack, or it is damaged."""


@dataclass(frozen=True)
class PackedInstance:
    """One instance in a pack.

    Attributes:
        sop_instance_uid: (0008,0018).
        sop_class_uid: (0008,0016).
        transfer_syntax: (0002,0010).
        offset: bytes from the start of the pack to its Part 10 file.
        length: bytes of its Part 10 file.
        sha256: of its Part 10 file, in hexadecimal.
        frames: where its frames are, from the start of its Part 10 file.
        bulk: where its bulk data is: path → (offset, length), from the start of its Part 10 file.
        dicom: its DICOM JSON; each ``BulkDataURI`` holds a path of ``bulk``.
        warnings: what was wrong but lived with.
    """

    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax: str
    offset: int
    length: int
    sha256: str
    frames: FrameTable | None
    bulk: Mapping[str, tuple[int, int]]
    dicom: DicomJson
    warnings: list[str]


@dataclass(frozen=True)
class PackIndex:
    """What a pack holds.

    Attributes:
        study: Study Instance UID of all of it.
        series: Series Instance UID of all of it.
        stored: when it was written, with a time zone.
        source: who sent it.
        instances: in the order of the entries.
    """

    study: str
    series: str
    stored: datetime
    source: str
    instances: list[PackedInstance]

    def to_bytes(self) -> bytes:
        """The compressed form, as in the pack; the same index gives the same bytes."""
        raise NotImplementedError


def read_index(data: bytes) -> PackIndex:
    """The index from the bytes of its entry.

    Raises:
        InvalidPack: it is not gzip, too large, not JSON, of another version, or something in it is malformed.
    """
    raise NotImplementedError
