"""What ends an association, an association request or a store, each with what the peer is told."""

from typing import Final

UNRECOGNISED_PDU: Final = 1
UNEXPECTED_PDU: Final = 2
UNRECOGNISED_PARAMETER: Final = 4
UNEXPECTED_PARAMETER: Final = 5
INVALID_PARAMETER: Final = 6

PERMANENT: Final = 1
TRANSIENT: Final = 2
BY_USER: Final = 1
BY_PROVIDER_ACSE: Final = 2
BY_PROVIDER_PRESENTATION: Final = 3

OUT_OF_RESOURCES: Final = 0xA700
CANNOT_UNDERSTAND: Final = 0xC000
LONGEST_COMMENT: Final = 64


class InvalidPdu(ValueError):
    """The peer sent something that the upper layer does not allow; the association is aborted.

    Arguments:
        words: what is wrong, for the log.
        reason: of the A-ABORT, whose source is the service provider (PS3.8 table 9-26).
    """

    def __init__(self, words: str, reason: int = INVALID_PARAMETER) -> None:
        super().__init__(words)
        self.words = words
        self.reason = reason


class PeerOutOfBounds(Exception):
    """The peer sent too much or too slowly; the association is aborted."""


class ConnectionEnded(Exception):
    """The peer closed the connection, or it broke."""


class AssociationRejected(Exception):
    """An association request that is refused (PS3.8 table 9-21).

    Arguments:
        result: 1 permanent, 2 transient.
        source: 1 service user, 2 service provider (ACSE), 3 service provider (presentation).
        reason: one of the table, by source.
        words: for the log.
    """

    def __init__(self, result: int, source: int, reason: int, words: str = "") -> None:
        super().__init__(words or f"rejected: result {result}, source {source}, reason {reason}")
        self.result = result
        self.source = source
        self.reason = reason

    @classmethod
    def called_ae_title_not_recognised(cls) -> "AssociationRejected":
        """The peer calls an AE title that is not here."""
        return cls(PERMANENT, BY_USER, 7, "the called AE title is not ours")

    @classmethod
    def calling_ae_title_not_recognised(cls) -> "AssociationRejected":
        """The peer may not come in."""
        return cls(PERMANENT, BY_USER, 3, "the calling AE title is not allowed")

    @classmethod
    def local_limit_exceeded(cls) -> "AssociationRejected":
        """There are too many associations at the moment."""
        return cls(TRANSIENT, BY_PROVIDER_PRESENTATION, 2, "too many associations")


class StoreRefused(Exception):
    """An instance that is not taken; the rest of its data set is read and thrown away, and the status answered.

    Arguments:
        status: the failure status (PS3.4 table B.2-1, PS3.7 annex C).
        comment: for (0000,0902) Error Comment; cut after 64 characters.
    """

    def __init__(self, status: int, comment: str = "") -> None:
        super().__init__(comment)
        self.status = status
        self.comment = comment
