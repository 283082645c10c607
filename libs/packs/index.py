"""The index of a pack: what its last entry says."""

import gzip
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, cast, get_args

import orjson

from libs.dicom.identifiers import is_uid
from libs.dicom.pixels import FrameTable
from libs.dicom.walk import DicomJson

VERSION: Final = 1
Rule = Literal["keep-first", "keep-latest"]
"""Which of several instances with one UID and different bytes is shown: the one stored first, or this pack's, being the
later. The rule belongs to the pack that comes later."""
INDEX_NAME: Final = "index.json.gz"
LARGEST_INDEX: Final = 512 * 1024 * 1024
"""Bytes of an index after decompression that are accepted."""
MOST_INSTANCES: Final = 100_000
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_LEVEL: Final = 6


class InvalidPack(ValueError):
    """The bytes are not a pack, or it is damaged, or it can't be made as asked."""


@dataclass(frozen=True)
class PackedInstance:
    """One instance in a pack.

    Attributes:
        sop_instance_uid: (0008,0018).
        sop_class_uid: (0008,0016).
        transfer_syntax: (0002,0010).
        offset: bytes from the start of the pack to its Part 10 file.
        length: bytes of its Part 10 file.
        sha256: of its Part 10 file, in lower-case hexadecimal.
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

    def to_json(self) -> dict[str, Any]:
        """The instance as the index has it."""
        return {
            "sop_instance_uid": self.sop_instance_uid,
            "sop_class_uid": self.sop_class_uid,
            "transfer_syntax": self.transfer_syntax,
            "offset": self.offset,
            "length": self.length,
            "sha256": self.sha256,
            "frames": self.frames,
            "bulk": {path: list(place) for path, place in self.bulk.items()},
            "dicom": self.dicom,
            "warnings": self.warnings,
        }

    @classmethod
    def from_json(cls, value: object) -> "PackedInstance":
        """The instance out of the index.

        Raises:
            InvalidPack: something is missing or malformed.
        """
        entry = _object(value, "an instance")
        offset, length = _size(entry, "offset"), _size(entry, "length")
        sha256 = _text(entry, "sha256")
        if not _SHA256.fullmatch(sha256):
            raise InvalidPack("The index has a SHA-256 that is none.")
        return cls(
            sop_instance_uid=_uid(entry, "sop_instance_uid"),
            sop_class_uid=_uid(entry, "sop_class_uid"),
            transfer_syntax=_uid(entry, "transfer_syntax"),
            offset=offset,
            length=length,
            sha256=sha256,
            frames=_frames(entry.get("frames")),
            bulk={path: _range(place) for path, place in _object(entry.get("bulk"), "bulk data").items()},
            dicom=cast("DicomJson", _object(entry.get("dicom"), "DICOM JSON")),
            warnings=[str(warning) for warning in _list(entry.get("warnings", []), "warnings")],
        )


@dataclass(frozen=True)
class PackIndex:
    """What a pack holds.

    Attributes:
        study: Study Instance UID of all of it.
        series: Series Instance UID of all of it.
        stored: when it was written, with a time zone.
        source: who sent it.
        instances: in the order of the entries.
        rule: what holds where an instance of another pack has one of these UIDs and other bytes.
    """

    study: str
    series: str
    stored: datetime
    source: str
    instances: list[PackedInstance]
    rule: Rule = "keep-first"

    def to_bytes(self) -> bytes:
        """The compressed form, as in the pack; the same index gives the same bytes."""
        return gzip.compress(orjson.dumps(self.to_json()), _LEVEL, mtime=0)

    def to_json(self) -> dict[str, Any]:
        """The index as JSON has it."""
        return {
            "version": VERSION,
            "study": self.study,
            "series": self.series,
            "stored": self.stored.isoformat(),
            "source": self.source,
            "rule": self.rule,
            "instances": [instance.to_json() for instance in self.instances],
        }

    @classmethod
    def from_json(cls, value: object) -> "PackIndex":
        """The index out of JSON.

        Raises:
            InvalidPack: something is missing or malformed.
        """
        content = _object(value, "the index")
        if content.get("version") != VERSION:
            raise InvalidPack(f"The index is of another version than {VERSION}.")
        entries = _list(content.get("instances"), "instances")
        if not 0 < len(entries) <= MOST_INSTANCES:
            raise InvalidPack("The index has no instances or too many.")
        instances = [PackedInstance.from_json(entry) for entry in entries]
        if len({instance.sop_instance_uid for instance in instances}) != len(instances):
            raise InvalidPack("The index has a SOP Instance UID twice.")
        try:
            stored = datetime.fromisoformat(_text(content, "stored"))
        except ValueError:
            raise InvalidPack("The index has a malformed time.") from None
        rule = content.get("rule", "keep-first")
        if rule not in get_args(Rule):
            raise InvalidPack("The index has a rule for duplicates that is not known.")
        return cls(_uid(content, "study"), _uid(content, "series"), stored, _text(content, "source"), instances, rule)


def read_index(data: bytes) -> PackIndex:
    """The index from the bytes of its entry.

    Arguments:
        data: the content of ``index.json.gz``, compressed as it lies.

    Raises:
        InvalidPack: it is not gzip, too large, not JSON, of another version, or something in it is malformed.
    """
    inflater = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        text = inflater.decompress(data, LARGEST_INDEX)
    except zlib.error as error:
        raise InvalidPack("The index is not gzip.") from error
    if not inflater.eof:
        raise InvalidPack("The index is cut short or too large.")
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidPack("The index is not JSON.") from error
    return PackIndex.from_json(value)


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidPack(f"The index is malformed: {what} is not an object.")
    return value


def _list(value: object, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidPack(f"The index is malformed: {what} is not a list.")
    return value


def _text(value: Mapping[str, Any], name: str) -> str:
    found = value.get(name)
    if not isinstance(found, str):
        raise InvalidPack(f"The index is malformed: {name} is not a text.")
    return found


def _uid(value: Mapping[str, Any], name: str) -> str:
    found = value.get(name)
    if not isinstance(found, str) or not is_uid(found):
        raise InvalidPack(f"The index is malformed: {name} is not a unique identifier.")
    return found


def _natural(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InvalidPack("The index is malformed: an offset or length is not a natural number.")
    return value


def _size(value: Mapping[str, Any], name: str) -> int:
    return _natural(value.get(name))


def _range(value: object) -> tuple[int, int]:
    pair = _list(value, "a byte range")
    if len(pair) != 2:
        raise InvalidPack("The index is malformed: a byte range is not a pair.")
    return _natural(pair[0]), _natural(pair[1])


def _frames(value: object) -> FrameTable | None:
    if value is None:
        return None
    table = _object(value, "a frame table")
    if table.get("kind") == "native":
        for name in ("offset", "length", "count"):
            _natural(table.get(name))
    elif table.get("kind") == "encapsulated":
        for fragments in _list(table.get("fragments"), "fragments"):
            for fragment in _list(fragments, "a frame"):
                _range(fragment)
    else:
        raise InvalidPack("The index has a frame table of an unknown kind.")
    return cast("FrameTable", table)
