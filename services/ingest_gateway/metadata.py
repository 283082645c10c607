"""Instances that come as metadata and bulk data apart (PS3.18 sections 8.6 and 10.5): Part 10 files are made of them.

The metadata is one or more parts of application/dicom+json; each other part is bulk data, and its Content-Location is
the ``BulkDataURI`` that stands for it. Compressed Pixel Data comes one frame a part; the parts of an image have the
same Content-Location, in the order of its frames. Nothing is made up: an instance for which something is missing is
refused, and the others go on. The same request always makes the same files, so that a retry is one.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import orjson

from libs.dicom import DicomError, InvalidDicom, is_uid, require_uid
from libs.dicom.codestream import jpeg_syntax
from libs.dicom.encode import BulkData, Encoded, encode_data_set
from libs.dicom.errors import MISMATCH, UNSUPPORTED_TRANSFER_SYNTAX
from libs.dicom.identifiers import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    HTJ2K_LOSSLESS,
    IMPLICIT_VR_LITTLE_ENDIAN,
    JPEG_2000_LOSSLESS,
    JPEG_2000_PART_2_LOSSLESS,
    JPEG_LOSSLESS_FIRST_ORDER,
    JPEG_LS_LOSSLESS,
    RLE_LOSSLESS,
    TRANSFER_SYNTAXES,
)
from libs.dicom.part10 import file_meta
from libs.web.problems import BadRequest, TooLarge
from services.ingest_gateway.domain import (
    COERCED,
    NO_RESOURCES,
    Coercion,
    PartNote,
    Reason,
    SpooledPart,
    refusal_of_coding,
)
from services.ingest_gateway.multipart import MediaType, MultipartReader, PartBegan, PartData, parse_media_type
from services.ingest_gateway.spool import RequestSpool

_METADATA_TYPES: Final = frozenset({"application/dicom+json", "application/json"})
_DEFAULT_SYNTAXES: Final = {
    "image/jpeg": JPEG_LOSSLESS_FIRST_ORDER,
    "image/dicom-rle": RLE_LOSSLESS,
    "image/jls": JPEG_LS_LOSSLESS,
    "image/jp2": JPEG_2000_LOSSLESS,
    "image/jpx": JPEG_2000_PART_2_LOSSLESS,
    "image/jphc": HTJ2K_LOSSLESS,
    "video/mpeg": "1.2.840.10008.1.2.4.100",
    "video/mp4": "1.2.840.10008.1.2.4.102",
}
"""Where a part does not say (PS3.18 table 8.7.3-5)."""
_UNCOMPRESSED: Final = frozenset({"", "*", EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN})
_IMAGE_PIXEL: Final = ("00280002", "00280004", "00280010", "00280011", "00280100")
_PIXEL_DATA: Final = "7FE00010"
_MOST_TOKENS: Final = 300_000
"""Commas, colons, braces and brackets of the metadata: what is made of them in memory is bounded before it is made."""
_BLOCK: Final = 1 << 20
_NO_SUCH_SYNTAX: Final = "The bulk data has a transfer syntax that is not known, or does not fit its media type."


@dataclass(frozen=True)
class MetadataLimits:
    """Bounds of one request.

    Attributes:
        metadata: bytes of all its metadata.
        instances: how many it may describe.
        made: bytes of all files that are made of it.
    """

    metadata: int
    instances: int
    made: int


@dataclass(frozen=True)
class ReceivedPart:
    """What the headers of a part say: its media type, and its Content-Location."""

    media_type: MediaType
    location: str


async def receive_metadata(
    chunks: AsyncIterator[bytes], reader: MultipartReader, spool: RequestSpool
) -> list[ReceivedPart]:
    """Spools each part of the body.

    Returns:
        for each part of the spool, what its headers say.

    Raises:
        InvalidMultipart: the body does not follow RFC 2046, or was cut short.
        StorageFull: the spool has no room left.
    """
    received: list[ReceivedPart] = []
    async for chunk in chunks:
        for event in reader.feed(chunk):
            if isinstance(event, PartData):
                await spool.write(event.data)
            elif isinstance(event, PartBegan):
                media_type = parse_media_type(event.headers.get("content-type", ""))
                received.append(ReceivedPart(media_type, event.headers.get("content-location", "").strip()))
                await spool.begin_part(refusal_of_coding(event.headers))
            else:
                await spool.end_part()
    reader.finish()
    await spool.settle()
    return received


async def make_instances(
    received: Sequence[ReceivedPart], parts: Sequence[SpooledPart], made: RequestSpool, limits: MetadataLimits
) -> None:
    """Makes a Part 10 file of each instance that the metadata describes; one that can't be made is a refused part.

    Arguments:
        received: what the headers of each part say.
        parts: the parts themselves.
        made: takes the files.
        limits: bounds.

    Raises:
        BadRequest: there is no metadata, or it is no JSON that describes instances.
        TooLarge: it is larger, or describes more instances, than is taken.
        StorageFull: the spool has no room left.
    """
    models = await made.run(_read_models, list(zip(received, parts, strict=True)), limits)
    bulk: dict[str, list[tuple[ReceivedPart, SpooledPart]]] = defaultdict(list)
    for about, part in zip(received, parts, strict=True):
        if about.media_type.name not in _METADATA_TYPES:
            bulk[about.location].append((about, part))
    left = limits.made
    for model in models:
        left = await _make_instance(model, bulk, made, left)


def _read_models(parts: Sequence[tuple[ReceivedPart, SpooledPart]], limits: MetadataLimits) -> list[Any]:
    """The models of all metadata parts."""
    metadata = [part for about, part in parts if about.media_type.name in _METADATA_TYPES]
    if not metadata or any(part.refusal for part in metadata):
        raise BadRequest("The body has no part of application/dicom+json that can be read, so there is no metadata.")
    if sum(part.size for part in metadata) > limits.metadata:
        raise TooLarge(f"The metadata may have {limits.metadata} bytes at most; send bulk data apart from it.")
    models: list[Any] = []
    tokens = 0
    for part in metadata:
        text = part.path.read_bytes()
        tokens += sum(map(text.count, (b",", b"[", b"{", b":")))
        if tokens > _MOST_TOKENS:
            raise TooLarge("The metadata describes too much for one request; send fewer instances at once.")
        try:
            found = orjson.loads(text)
        except orjson.JSONDecodeError:
            raise BadRequest("The metadata is not JSON in UTF-8.") from None
        models += map(_with_upper_case_tags, found if isinstance(found, list) else [found])
    if not models:
        raise BadRequest("The metadata describes no instance, so there is nothing to store.")
    if len(models) > limits.instances:
        raise TooLarge(f"One request may have {limits.instances} instances at most; send the rest in another.")
    return models


def _with_upper_case_tags(model: Any) -> Any:
    """The model as the rest of this module wants it; what is no model, or has a tag twice, is left as it is."""
    if not isinstance(model, dict):
        return model
    upper = {key.upper(): element for key, element in model.items()}
    return upper if len(upper) == len(model) else model


async def _make_instance(
    model: Any, bulk: Mapping[str, list[tuple[ReceivedPart, SpooledPart]]], made: RequestSpool, left: int
) -> int:
    """Makes one file, or a refused part; returns how many bytes may still be made."""
    note = PartNote(_uid(model, "00080018"), _uid(model, "00080016"))
    try:
        meta, encoded = await made.run(_encode, model, bulk)
    except DicomError as error:
        await _refuse(made, Reason(error.failure_reason, error.reason), note)
        return left
    if len(meta) + encoded.size > left:
        await _refuse(made, Reason(NO_RESOURCES, "the instances of the request are too large together"), note)
        return left
    if encoded.replaced_character_set is not None:
        words = "the text is kept in UTF-8, so Specific Character Set was changed to ISO_IR 192"
        original = {"00080005": encoded.replaced_character_set}
        note = PartNote(coercion=Coercion(Reason(COERCED, words), original, datetime.now(UTC)))
    await made.begin_part(note=note)
    await made.write(meta)
    for piece in encoded.pieces:
        if isinstance(piece, bytes):
            await made.write(piece)
            continue
        blocks = _blocks(piece)
        while block := await made.run(next, blocks, b""):
            await made.write(block)
    await made.end_part()
    return left - len(meta) - encoded.size


async def _refuse(made: RequestSpool, refusal: Reason, note: PartNote) -> None:
    await made.begin_part(refusal, note)
    await made.end_part()


def _encode(model: Any, bulk: Mapping[str, list[tuple[ReceivedPart, SpooledPart]]]) -> tuple[bytes, Encoded]:
    """File meta information and data set of one instance."""
    if not isinstance(model, dict):
        raise InvalidDicom("What the metadata describes is not an object of the DICOM JSON model.")
    for tag, name in (("00080016", "SOP Class UID"), ("00080018", "SOP Instance UID")):
        require_uid(_uid(model, tag), name)
    if _PIXEL_DATA in model and not all(tag in model for tag in _IMAGE_PIXEL):
        raise InvalidDicom("Attributes of the Image Pixel module are missing, such as Rows.", MISMATCH)
    encoded = encode_data_set(model, _resolver(bulk, _frames_of(model)))
    meta = file_meta(
        sop_class_uid=_uid(model, "00080016"),
        sop_instance_uid=_uid(model, "00080018"),
        transfer_syntax=encoded.transfer_syntax or EXPLICIT_VR_LITTLE_ENDIAN,
    )
    return meta, encoded


def _resolver(
    bulk: Mapping[str, list[tuple[ReceivedPart, SpooledPart]]], frames: int
) -> Callable[[str], BulkData | None]:
    def resolve(uri: str) -> BulkData | None:
        found = bulk.get(uri)
        if not uri or not found or any(part.refusal for _, part in found):
            return None
        syntaxes = {_syntax_of(about, part) for about, part in found}
        if len(syntaxes) > 1:
            raise InvalidDicom("The frames of an image have different transfer syntaxes.", UNSUPPORTED_TRANSFER_SYNTAX)
        (syntax,) = syntaxes
        wanted = 1 if not syntax or TRANSFER_SYNTAXES[syntax].video else frames
        if len(found) != wanted:
            raise InvalidDicom("The bulk data was sent in another number of parts than the instance has frames.")
        return BulkData([(part.path, part.size) for _, part in found], syntax)

    return resolve


def _syntax_of(about: ReceivedPart, part: SpooledPart) -> str:
    """The transfer syntax of compressed bulk data; empty for what is not compressed."""
    name = about.media_type.name
    given = about.media_type.parameters.get("transfer-syntax", "")
    if name == "image/jpeg" and given in ("", "*"):
        with part.path.open("rb") as file:
            # JPEG says itself which process it is, and many send the lossy one without saying so.
            return jpeg_syntax(file.read(_BLOCK)) or _unknown()
    if name in _DEFAULT_SYNTAXES:
        given = _DEFAULT_SYNTAXES[name] if given in ("", "*") else given
        known = TRANSFER_SYNTAXES.get(given)
        return given if known is not None and known.media_type == name else _unknown()
    if given in _UNCOMPRESSED:
        return ""
    known = TRANSFER_SYNTAXES.get(given)
    return given if known is not None and known.encapsulated else _unknown()


def _unknown() -> str:
    raise InvalidDicom(_NO_SUCH_SYNTAX, UNSUPPORTED_TRANSFER_SYNTAX)


def _frames_of(model: Mapping[str, Any]) -> int:
    """Number of Frames, 1 where it is not there or is no number."""
    element = model.get("00280008")
    values = element.get("Value") if isinstance(element, dict) else None
    try:
        return int(values[0]) if isinstance(values, list) and values else 1
    except (TypeError, ValueError):
        return 1


def _uid(model: Any, tag: str) -> str:
    """A UID of the model; empty where it has none that is valid."""
    element = model.get(tag) if isinstance(model, dict) else None
    values = element.get("Value") if isinstance(element, dict) else None
    return str(values[0]) if isinstance(values, list) and values and is_uid(values[0]) else ""


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK):
            yield block
