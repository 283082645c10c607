"""What is asked for and what is given: plain types."""

import hashlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

from libs.dicom.errors import InvalidUid
from libs.dicom.identifiers import require_uid
from libs.web.problems import BadRequest


@dataclass(frozen=True)
class Target:
    """A study, a series of it, or an instance of that.

    Attributes:
        study: Study Instance UID.
        series: Series Instance UID.
        instance: SOP Instance UID.
    """

    study: str
    series: str | None = None
    instance: str | None = None

    def __post_init__(self) -> None:
        """Refuses what isn't a unique identifier.

        Raises:
            BadRequest: one of them isn't.
        """
        names = {
            "Study Instance UID": self.study,
            "Series Instance UID": self.series,
            "SOP Instance UID": self.instance,
        }
        try:
            for what, uid in names.items():
                if uid is not None:
                    require_uid(uid, what)
        except InvalidUid as error:
            raise BadRequest(error.reason) from None

    @property
    def path(self) -> str:
        """Its path below the base address."""
        parts = [f"/studies/{self.study}"]
        parts += [f"/series/{self.series}"] if self.series is not None else []
        parts += [f"/instances/{self.instance}"] if self.instance is not None else []
        return "".join(parts)


@dataclass(frozen=True)
class Content:
    """What is given.

    Attributes:
        media_type: as ``Content-Type`` has it.
        body: all of it, or piece by piece.
        etag: names this state of it.
        status: of the answer.
        headers: further ones.
    """

    media_type: str
    body: bytes | AsyncIterator[bytes]
    etag: str = ""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


def entity_tag(*parts: object) -> str:
    """A weak entity tag: the same parts, the same content, whatever its encoding (RFC 9110 section 8.8.3)."""
    return f'W/"{hashlib.sha256(repr(parts).encode()).hexdigest()[:32]}"'


def is_current(etag: str, if_none_match: str) -> bool:
    """Whether the caller has this state already (RFC 9110 section 13.1.2)."""
    known = {part.strip().removeprefix("W/") for part in if_none_match.split(",")}
    return "*" in known or etag.removeprefix("W/") in known


def not_modified(etag: str) -> Content:
    """The answer to who has it already."""
    return Content("", b"", etag, 304)
