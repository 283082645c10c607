"""The object store: one bucket a tenant, immutable objects, every request bounded in time."""

from libs.objects.errors import (
    AlreadyExists,
    BucketMissing,
    ObjectError,
    ObjectNotFound,
    ObjectsUnavailable,
)
from libs.objects.store import ObjectStore, StoredObject
from libs.objects.upload import Piece

__all__ = [
    "AlreadyExists",
    "BucketMissing",
    "ObjectError",
    "ObjectNotFound",
    "ObjectStore",
    "ObjectsUnavailable",
    "Piece",
    "StoredObject",
]
