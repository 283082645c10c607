"""What can be wrong with a DICOM file, each with the failure reason that STOW-RS and C-STORE answer with."""

from typing import ClassVar, Final

CANNOT_UNDERSTAND: Final = 0xC000
"""The data set can't be read (PS3.4 table B.2-1)."""
PROCESSING_FAILURE: Final = 0x0110
"""Something failed on our side (PS3.7 annex C)."""
MISMATCH: Final = 0xA900
"""The data set does not fit its SOP class (an identifier is missing or malformed) or the study it was sent to
(PS3.18 table I.2-2)."""
UNSUPPORTED_TRANSFER_SYNTAX: Final = 0xC122
"""The transfer syntax is not supported (PS3.18 table I.2-2)."""


class DicomError(ValueError):
    """A DICOM file that can't be taken.

    Arguments:
        reason: what is wrong, in words; never a value of the data set, since that may be patient data.
        failure_reason: (0008,1197) as STOW-RS answers it, and the status of a C-STORE.
    """

    default_failure_reason: ClassVar[int] = CANNOT_UNDERSTAND

    def __init__(self, reason: str, failure_reason: int | None = None) -> None:
        super().__init__(reason, failure_reason)
        self.reason = reason
        self.failure_reason = self.default_failure_reason if failure_reason is None else failure_reason

    def __str__(self) -> str:
        return self.reason


class NotDicom(DicomError):
    """The bytes are not a DICOM Part 10 file (PS3.10 section 7.1)."""


class InvalidDicom(DicomError):
    """A Part 10 file whose data set is broken, out of bounds, or lacks what every composite instance has."""


class InvalidUid(DicomError):
    """The text is not a unique identifier (PS3.5 section 9.1)."""

    default_failure_reason = MISMATCH


class InvalidFrame(DicomError):
    """A frame that can't be decoded or shown."""
