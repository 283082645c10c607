"""What a request says of its body, and of the answer that it takes, before a byte of the body is read."""

import re
from dataclasses import dataclass
from typing import Final, Literal

from fastapi import Request

from libs.auth import Principal
from libs.dicom import is_uid
from libs.tenancy import SYSTEM_TENANT
from libs.web.problems import BadRequest, Forbidden, NotAcceptable, TooLarge, UnsupportedMediaType
from services.ingest_gateway.multipart import InvalidMultipart, MediaType, parse_media_type, require_boundary

ANSWER_TYPE: Final = "application/dicom+json"
_ACCEPTABLE: Final = frozenset({"*/*", "application/*", ANSWER_TYPE})
_CODINGS: Final = {"": False, "identity": False, "gzip": True, "x-gzip": True}


@dataclass(frozen=True)
class Body:
    """How a body is to be read.

    Attributes:
        kind: one instance, instances as parts, or metadata with bulk data as parts.
        boundary: of a multipart body.
        typed: whether the request says of what type its parts are; otherwise each has to.
        compressed: whether all of it is gzip.
    """

    kind: Literal["instance", "instances", "metadata"]
    boundary: bytes = b""
    typed: bool = True
    compressed: bool = False


def understand(request: Request, principal: Principal, study: str | None, *, largest: int) -> Body:
    """Checks all that can be checked before the body is read.

    Arguments:
        request: the request.
        principal: who sends it.
        study: what the address names as study, if anything.
        largest: bytes that a body may have.

    Raises:
        BadRequest, Forbidden, NotAcceptable, TooLarge, UnsupportedMediaType: the request is refused as a whole.
    """
    if principal.tenant == SYSTEM_TENANT:
        raise Forbidden("The operators' tenant holds no studies.")
    if study is not None and not is_uid(study):
        raise BadRequest("The address does not name a study: a Study Instance UID has digits and dots only.")
    _require_acceptable(request.headers.get("accept", "*/*"))
    if declared_size(request) > largest:
        raise TooLarge(f"One request may have {largest} bytes at most; send the rest in another.")
    compressed = _is_compressed(request.headers.get("content-encoding", ""))
    media_type = parse_media_type(request.headers.get("content-type", ""))
    if media_type.name == "application/dicom":
        return Body("instance", compressed=compressed)
    kind, typed = _kind_of_parts(media_type)
    try:
        return Body(kind, require_boundary(media_type), typed, compressed)
    except InvalidMultipart as error:
        raise BadRequest(str(error)) from None


def declared_size(request: Request) -> int:
    """Bytes that the body has by its own account, 0 when it does not say."""
    declared = request.headers.get("content-length", "0")
    return int(declared) if declared.isascii() and declared.isdigit() else 0


def _is_compressed(coding: str) -> bool:
    """Whether the body is gzip.

    Raises:
        UnsupportedMediaType: it is compressed in another way, or in several.
    """
    found = _CODINGS.get(coding.strip().lower())
    if found is None:
        # RFC 9110 section 15.5.16: what would have been taken.
        raise UnsupportedMediaType(
            "A body is taken as it is or with Content-Encoding: gzip, and in no other encoding.",
            headers={"Accept-Encoding": "gzip, identity"},
        )
    return found


def _kind_of_parts(media_type: MediaType) -> tuple[Literal["instances", "metadata"], bool]:
    """What the parts are, and whether the request itself says so; when it says nothing, the parts have to.

    Raises:
        UnsupportedMediaType: it is no multipart/related, or its parts are something else.
    """
    if media_type.name != "multipart/related":
        raise UnsupportedMediaType(
            'Instances are taken as application/dicom, or as multipart/related with type="application/dicom" or '
            f'type="application/dicom+json"; this body is {media_type.name or "of no type"!s:.100}.'
        )
    inner = media_type.parameters.get("type", "").lower()
    if inner == "application/dicom+json":
        return "metadata", True
    if inner == "application/dicom+xml":
        raise UnsupportedMediaType(
            "Metadata is not taken as application/dicom+xml (the Native DICOM Model); send application/dicom+json, or "
            "Part 10 files as application/dicom."
        )
    if inner not in ("", "application/dicom"):
        raise UnsupportedMediaType(f"The parts must be application/dicom or application/dicom+json, not {inner:.100}.")
    return "instances", bool(inner)


def _require_acceptable(accept: str) -> None:
    """Checks that the sender takes the one type that answers have.

    Raises:
        NotAcceptable: it does not.
    """
    for media_range in accept.split(","):
        wanted = parse_media_type(media_range)
        refused = re.fullmatch(r"0(\.0{0,3})?", wanted.parameters.get("q", "1"))
        if wanted.name in _ACCEPTABLE and not refused:
            return
    raise NotAcceptable(f"The answer can be had as {ANSWER_TYPE} only.")
