"""The register of hostile instances."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Final
from uuid import uuid4

from libs.dicom.identifiers import EXPLICIT_VR_LITTLE_ENDIAN
from libs.dicom.part10 import file_meta
from tests.support.dicom_bytes import SOP_CLASS, element, identity

Make = Callable[["Identity"], bytes]
_MODULES: Final = ("bombs", "structure", "text", "pixels")


@dataclass(frozen=True)
class Identity:
    """The identifiers of one instance that is to be made.

    Attributes:
        instance: SOP Instance UID.
        study: Study Instance UID.
        series: Series Instance UID.
    """

    instance: str
    study: str
    series: str

    @classmethod
    def new(cls) -> "Identity":
        """Identifiers that no other instance has."""
        root = f"2.25.{uuid4().int}"
        return cls(f"{root}.3", f"{root}.1", f"{root}.2")

    def elements(self) -> list[bytes]:
        """The four identifying elements and the modality."""
        return identity(instance=self.instance, study=self.study, series=self.series)

    def head(self, syntax: str = EXPLICIT_VR_LITTLE_ENDIAN) -> bytes:
        """Preamble and file meta information."""
        return file_meta(sop_class_uid=SOP_CLASS, sop_instance_uid=self.instance, transfer_syntax=syntax)

    def file(self, *elements: bytes, syntax: str = EXPLICIT_VR_LITTLE_ENDIAN, after: bytes = b"") -> bytes:
        """A file of the identity and these elements in ascending order, and further bytes behind them."""
        ordered = sorted([*self.elements(), *elements], key=lambda raw: (raw[1], raw[0], raw[3], raw[2]))
        return self.head(syntax) + b"".join(ordered) + after


@dataclass(frozen=True)
class HostileInstance:
    """One instance that nobody honest sends.

    Attributes:
        name: of the function that makes it, with hyphens.
        kind: its class.
        make: makes it under an identity.
        refused: the statuses of which one is answered (PS3.4 table B.2-1, PS3.18 table I.2-2); empty when it is stored,
            byte for byte.
        over_dimse: whether C-STORE can carry it; what is wrong before the data set can't be sent so.
    """

    name: str
    kind: str
    make: Make
    refused: frozenset[int]
    over_dimse: bool

    @property
    def stored(self) -> bool:
        """Whether it is stored."""
        return not self.refused


_INSTANCES: Final[dict[str, HostileInstance]] = {}
CANNOT_UNDERSTAND: Final = frozenset({0xC000})
MISMATCH: Final = frozenset({0xA900, 0xC000})
"""A missing or malformed identifier. Over DIMSE it may come out as a data set that can't be understood."""
STORED: Final = frozenset[int]()


def instance(kind: str, refused: frozenset[int], *, over_dimse: bool = True) -> Callable[[Make], Make]:
    """Enters a function into the register."""

    def enter(make: Make) -> Make:
        name = make.__name__.replace("_", "-")
        _INSTANCES[name] = HostileInstance(name, kind, make, refused, over_dimse)
        return make

    return enter


def hostile_instances() -> list[HostileInstance]:
    """All of them, class by class."""
    for module in _MODULES:
        import_module(f"tests.support.hostile.{module}")
    return list(_INSTANCES.values())


def hostile_instance(name: str) -> HostileInstance:
    """The one of this name."""
    hostile_instances()
    return _INSTANCES[name]


def comment(value: bytes) -> bytes:
    """Image Comments, for what needs no place of its own."""
    return element(0x00204000, "LT", value)
