"""Errors that carry their outcome: a DIMSE status towards the scanner, a retry or not towards the cloud."""

from libs.dimse import StoreRefused


class OutOfResources(StoreRefused):
    """The disk is full, or nearly; the sender keeps the instance and tries again."""

    def __init__(self, reason: str) -> None:
        super().__init__(0xA700, reason)


class DoesNotMatch(StoreRefused):
    """The data set is another SOP class or instance than the command says."""

    def __init__(self, reason: str) -> None:
        super().__init__(0xA900, reason)


class CannotUnderstand(StoreRefused):
    """The data set is not DICOM, or lacks what identifies it."""

    def __init__(self, reason: str) -> None:
        super().__init__(0xC000, reason)


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
