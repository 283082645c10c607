"""Writing a pack: streamed from files, ZIP64, entries stored, the same input gives the same bytes."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from libs.dicom.header import Header
from libs.packs.index import PackIndex


@dataclass(frozen=True)
class PackInput:
    """One instance to be packed.

    Attributes:
        header: as ``read_header`` gave it.
        source: its Part 10 file, on disk or in memory.
        sha256: of that file, in hexadecimal; checked while it is copied.
    """

    header: Header
    source: Path | bytes
    sha256: str


@dataclass(frozen=True)
class PackInfo:
    """What the event about a stored pack says.

    Attributes:
        size: bytes of the pack.
        index_offset: bytes from its start to the content of its index entry.
        index_length: bytes of that content, compressed.
        index: what it says.
    """

    size: int
    index_offset: int
    index_length: int
    index: PackIndex


def pack_key(study: str, series: str, contents: Iterable[tuple[str, str]]) -> str:
    """The object key of a pack: a retry of the same batch has the same key.

    Arguments:
        study: Study Instance UID.
        series: Series Instance UID.
        contents: SOP Instance UID and SHA-256 (hexadecimal) of each instance, in any order.
    """
    lines = "\n".join(sorted(f"{uid} {sha256.lower()}" for uid, sha256 in contents))
    return f"packs/{study}/{series}/{hashlib.sha256(lines.encode()).hexdigest()[:32]}.zip"


def write_pack(
    target: Path | BinaryIO,
    instances: Iterable[PackInput],
    *,
    study: str,
    series: str,
    stored: datetime,
    source: str,
) -> PackInfo:
    """Writes a pack.

    Raises:
        InvalidPack: no instance, a SOP Instance UID twice, another study or series, or a file whose bytes do not have
            its SHA-256.
    """
    raise NotImplementedError
