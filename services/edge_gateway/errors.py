"""Errors that carry their outcome: a DIMSE status towards the scanner, a retry or not towards the cloud."""

from typing import ClassVar


class StoreRefused(Exception):
    """A C-STORE that is not taken.

    Attributes:
        status: the DIMSE status of the answer (PS3.4 table B.2-1, PS3.7 annex C).
    """

    status: ClassVar[int] = 0x0110

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class OutOfResources(StoreRefused):
    """The disk is full, or nearly; the sender keeps the instance and tries again."""

    status = 0xA700


class DoesNotMatch(StoreRefused):
    """The data set is another SOP class or instance than the command says."""

    status = 0xA900


class CannotUnderstand(StoreRefused):
    """The data set is not DICOM, or lacks what identifies it."""

    status = 0xC000


class SpoolDamaged(Exception):
    """A file of the spool is missing or is not what was written.

    Attributes:
        sequence: the journal entry it belongs to.
    """

    def __init__(self, sequence: int, reason: str) -> None:
        super().__init__(reason)
        self.sequence = sequence
        self.reason = reason


class SpoolInUse(Exception):
    """Another process works on this spool."""


class CloudError(Exception):
    """The cloud did not take a batch."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class CloudAway(CloudError):
    """The line or the cloud is away; the same batch goes again later.

    Attributes:
        retry_after: seconds that the cloud asked for, or None.
        unreachable: no connection could be made at all.
    """

    def __init__(self, reason: str, *, retry_after: float | None = None, unreachable: bool = False) -> None:
        super().__init__(reason)
        self.retry_after = retry_after
        self.unreachable = unreachable


class BatchRefused(CloudError):
    """The cloud refused the request as a whole; one of its instances may be the reason."""
