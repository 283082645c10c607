"""Which media types the caller accepts (PS3.18 sections 8.3.3.1, 8.7.5 and 8.7.8; RFC 9110 section 12.5.1)."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final

from libs.dicom.identifiers import (
    DEFLATED_LITTLE_ENDIAN,
    ENCAPSULATED_UNCOMPRESSED,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    transfer_syntax,
)
from libs.web.problems import BadRequest, NotAcceptable

OCTETS: Final = "application/octet-stream"
DICOM: Final = "application/dicom"
JSON: Final = "application/dicom+json"
JPEG: Final = "image/jpeg"
LONGEST_ACCEPT: Final = 8192

_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_RANGE: Final = re.compile(rf"\s*({_WORD})/({_WORD})")
_PARAMETER: Final = re.compile(rf'\s*;\s*(?:({_WORD})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;,"]*)))?')
_SEPARATOR: Final = re.compile(r"\s*(,|$)")
_ALIASES: Final = {
    "image/x-jls": "image/jls",
    "image/x-dicom-rle": "image/dicom-rle",
    "video/mpeg2": "video/mpeg",
    "image/j2c": "image/jp2",
}
_LITTLE_ENDIAN: Final = frozenset(
    {
        IMPLICIT_VR_LITTLE_ENDIAN,
        EXPLICIT_VR_LITTLE_ENDIAN,
        DEFLATED_LITTLE_ENDIAN,
        ENCAPSULATED_UNCOMPRESSED,
    }
)
"""Syntaxes whose frames are, byte for byte, those of Explicit VR Little Endian."""


@dataclass(frozen=True)
class MediaRange:
    """One acceptable media range.

    Attributes:
        media_type: of the answer, in lower case.
        parameters: by name in lower case; quoted and plain values are the same.
        q: its weight.
    """

    media_type: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    q: float = 1.0

    @property
    def multipart(self) -> bool:
        """Whether it is a message of several parts."""
        return self.media_type in ("multipart/related", "multipart/*")

    @property
    def content(self) -> str:
        """The media type of the content: that of the parts where there are parts; empty where it isn't said."""
        found = self.parameters.get("type", "").lower() if self.multipart else self.media_type
        return _ALIASES.get(found, found)

    @property
    def transfer_syntax(self) -> str:
        """The transfer syntax asked for: a UID, ``*`` for the one that is stored, or empty."""
        return self.parameters.get("transfer-syntax", "")


Tiers = Sequence[Sequence[MediaRange]]
"""Ranges of equal weight together, the heaviest first; those of the query parameter before those of the header."""


def acceptable(query: Sequence[str], header: str | None, *, dicom: bool = False) -> Tiers:
    """What the caller accepts; everything, when it doesn't say.

    Arguments:
        query: the values of the query parameter ``accept``.
        header: the ``Accept`` header, several joined by commas.
        dicom: whether it is about instances, so that neither list may mix DICOM and rendered media types.

    Raises:
        BadRequest: one of them can't be read, or mixes both (PS3.18 section 8.7.5).
    """
    tiers: list[list[MediaRange]] = []
    for text in (",".join(query), header or ""):
        ranges = sorted((r for r in parse(text) if r.q > 0), key=lambda r: -r.q)
        if dicom:
            _refuse_mixture(ranges)
        tiers += [list(group) for _, group in groupby(ranges, key=lambda r: r.q)]
    return tiers if tiers or (header or "").strip() or any(query) else [[MediaRange("*/*")]]


def parse(text: str) -> list[MediaRange]:
    """The media ranges of a list.

    Raises:
        BadRequest: it is too long or not such a list.
    """
    if len(text) > LONGEST_ACCEPT:
        raise BadRequest("The list of acceptable media types is too long.")
    found: list[MediaRange] = []
    position = 0
    while position < len(text):
        blank = re.compile(r"[\s,]*").match(text, position)
        position = blank.end() if blank else position
        if position == len(text):
            break
        matched = _RANGE.match(text, position)
        if matched is None:
            raise BadRequest("The list of acceptable media types can't be read.")
        parameters: dict[str, str] = {}
        position = matched.end()
        while parameter := _PARAMETER.match(text, position):
            position = parameter.end()
            if parameter[1]:
                quoted = re.sub(r"\\(.)", r"\1", parameter[2]) if parameter[2] is not None else parameter[3]
                parameters.setdefault(parameter[1].lower(), quoted)
        if _SEPARATOR.match(text, position) is None:
            raise BadRequest("The list of acceptable media types can't be read.")
        media_type = f"{matched[1]}/{matched[2]}".lower()
        found.append(MediaRange(media_type, parameters, _weight(parameters.pop("q", "1"))))
    return found


def _weight(text: str) -> float:
    if re.fullmatch(r"0(\.\d{0,3})?|1(\.0{0,3})?", text) is None:
        raise BadRequest("A weight (q) of an acceptable media type is not a number from 0 to 1.")
    return float(text)


def _refuse_mixture(ranges: Sequence[MediaRange]) -> None:
    rendered = any(_rendered(r) for r in ranges)
    if rendered and any(r.multipart or r.media_type.startswith("application/dicom") for r in ranges):
        raise BadRequest("DICOM and rendered media types can't be asked for together.")


def _rendered(media: MediaRange) -> bool:
    kind = media.media_type.partition("/")[0]
    return kind in ("image", "video", "text") or media.media_type == "application/pdf"


@dataclass(frozen=True)
class InstancesAnswer:
    """How instances are given out.

    Attributes:
        multipart: as parts of a message, or a single instance as it is.
        targets: for each stored transfer syntax, the one to give.
    """

    multipart: bool
    targets: Mapping[str, str]


def choose_instances(tiers: Tiers, stored: frozenset[str], *, single: bool) -> InstancesAnswer:
    """Chooses container and transfer syntaxes for ``application/dicom`` (PS3.18 section 8.7.3.1).

    Without a transfer syntax, Explicit VR Little Endian is meant. What is stored is preferred to what would have to
    be decoded, among ranges of equal weight.

    Arguments:
        tiers: what is acceptable.
        stored: the transfer syntaxes of what is asked for.
        single: whether a single part is possible.

    Raises:
        NotAcceptable: some of it can't be given so.
    """
    containers = [
        r.multipart or r.media_type == "*/*" for tier in tiers for r in tier if _takes_dicom(r, single=single)
    ]
    for multipart in dict.fromkeys(containers):
        fitting = [
            [r for r in tier if _takes_dicom(r, single=single) and (r.multipart or r.media_type == "*/*") == multipart]
            for tier in tiers
        ]
        targets = {syntax: _target(fitting, syntax) for syntax in stored}
        if all(targets.values()):
            return InstancesAnswer(multipart, {s: t for s, t in targets.items() if t})
    if not containers:
        raise NotAcceptable(
            f'Instances are given as multipart/related; type="{DICOM}"' + (f" or {DICOM}." if single else ".")
        )
    raise NotAcceptable(
        "An instance can't be given in the transfer syntax asked for; transfer-syntax=* takes what is stored."
    )


def _takes_dicom(media: MediaRange, *, single: bool) -> bool:
    if media.multipart:
        return media.content in ("", DICOM, "application/*", "*/*")
    return media.media_type == "*/*" or (single and media.media_type in (DICOM, "application/*"))


def _target(tiers: Tiers, stored: str) -> str | None:
    convertible = transfer_syntax(stored).decodable
    for tier in tiers:
        asked = {r.transfer_syntax or EXPLICIT_VR_LITTLE_ENDIAN for r in tier}
        if stored in asked or "*" in asked:
            return stored
        if EXPLICIT_VR_LITTLE_ENDIAN in asked and convertible:
            return EXPLICIT_VR_LITTLE_ENDIAN
    return None


@dataclass(frozen=True)
class FramesAnswer:
    """How frames are given out.

    Attributes:
        multipart: as parts of a message, or a single frame as it is.
        asked: the type of the parts, as the message names it.
        content_type: of each frame.
        decode: whether the pixels are decoded, or given as they are stored.
    """

    multipart: bool
    asked: str
    content_type: str
    decode: bool


def choose_frames(tiers: Tiers, stored: str, *, single: bool) -> FramesAnswer:
    """Chooses the media type of frames (PS3.18 section 8.7.3.3, tables 8.7.3-4 and 8.7.3-5).

    Arguments:
        tiers: what is acceptable.
        stored: the transfer syntax in which they are stored.
        single: whether one frame was asked for, so that a single part is possible.

    Raises:
        NotAcceptable: they can't be given so.
    """
    for tier in tiers:
        ranges = [r for r in tier if r.multipart or single]
        for choose in (_as_stored, _decoded):
            for media in ranges:
                found = choose(media, stored)
                if found is not None:
                    return found
    own = transfer_syntax(stored).media_type
    raise NotAcceptable(f"These frames are given as {OCTETS} or {own}; transfer-syntax=* takes what is stored.")


def _as_stored(media: MediaRange, stored: str) -> FramesAnswer | None:
    if stored == EXPLICIT_VR_BIG_ENDIAN:
        return None
    if stored in _LITTLE_ENDIAN:
        own, syntax = OCTETS, EXPLICIT_VR_LITTLE_ENDIAN
    else:
        own, syntax = transfer_syntax(stored).media_type, stored
    content = media.content or OCTETS
    wanted = media.transfer_syntax
    by_syntax = wanted in ("*", stored, syntax)
    if content == OCTETS or content in ("*/*", "application/*"):
        # Without a syntax these mean Explicit VR Little Endian; a video has nothing but itself.
        if not by_syntax and (wanted or (syntax != EXPLICIT_VR_LITTLE_ENDIAN and not own.startswith("video/"))):
            return None
        kind = OCTETS if content != "*/*" else own
    elif content in (own, f"{own.partition('/')[0]}/*") and (by_syntax or not wanted):
        kind = own
    else:
        return None
    multipart = media.multipart or media.media_type == "*/*"
    return FramesAnswer(multipart, kind, f"{kind}; transfer-syntax={syntax}", decode=False)


def _decoded(media: MediaRange, stored: str) -> FramesAnswer | None:
    fits = (media.content or OCTETS) in (OCTETS, "*/*", "application/*")
    native = stored == EXPLICIT_VR_BIG_ENDIAN and media.transfer_syntax in ("*", stored)
    asked = media.transfer_syntax in ("", EXPLICIT_VR_LITTLE_ENDIAN) or native
    if not (fits and asked and transfer_syntax(stored).decodable):
        return None
    multipart = media.multipart or media.media_type == "*/*"
    return FramesAnswer(multipart, OCTETS, f"{OCTETS}; transfer-syntax={EXPLICIT_VR_LITTLE_ENDIAN}", decode=True)


def choose_json(tiers: Tiers) -> str:
    """The media type of metadata and search results: DICOM JSON, the default (PS3.18 section 8.7.3.2).

    Raises:
        NotAcceptable: neither ``application/dicom+json`` nor ``application/json`` is acceptable.
    """
    for media in (r for tier in tiers for r in tier):
        if media.media_type in (JSON, "application/*", "*/*"):
            return JSON
        if media.media_type == "application/json":
            return "application/json"
    raise NotAcceptable(f"This is given as {JSON}.")


def choose_bulk(tiers: Tiers) -> bool:
    """Whether bulk data is given as the part of a message (true), or as it is.

    Raises:
        NotAcceptable: ``application/octet-stream`` is not acceptable.
    """
    return _first(tiers, lambda c: c in ("", OCTETS, "*/*", "application/*"), OCTETS).multipart


def choose_rendered(tiers: Tiers) -> str:
    """The media type of rendered images: JPEG (PS3.18 section 8.7.4).

    Raises:
        NotAcceptable: JPEG is not acceptable, or only as a part of a message.
    """
    singles = [[r for r in tier if not r.multipart] for tier in tiers]
    _first(singles, lambda c: c in (JPEG, "image/*", "*/*"), JPEG)
    return JPEG


def _first(tiers: Tiers, fits: Callable[[str], bool], given: str) -> MediaRange:
    for media in (r for tier in tiers for r in tier):
        if fits(media.content):
            return media
    raise NotAcceptable(f"This is given as {given}.")
