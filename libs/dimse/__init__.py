"""DICOM associations taken: an acceptor for verification and storage (PS3.8, PS3.7), bounded in every direction.

``Acceptor`` listens; ``admit`` says who may come in; a ``Store`` keeps what is received.
"""

from libs.dimse.acceptor import Acceptor
from libs.dimse.contract import Limits, Peer, Receiving, Store, StoreCommand, StoreStatus
from libs.dimse.errors import AssociationRejected, InvalidPdu, StoreRefused

__all__ = [
    "Acceptor",
    "AssociationRejected",
    "InvalidPdu",
    "Limits",
    "Peer",
    "Receiving",
    "Store",
    "StoreCommand",
    "StoreRefused",
    "StoreStatus",
]
