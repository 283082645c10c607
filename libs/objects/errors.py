"""What can go wrong at the object store. ``ObjectsUnavailable`` may pass; the others will not."""


class ObjectError(Exception):
    """An operation on the object store that failed."""


class ObjectNotFound(ObjectError):
    """The tenant has no such object."""


class AlreadyExists(ObjectError):
    """There is an object under this key, and it was left as it is."""


class BucketMissing(ObjectError):
    """The tenant has no bucket."""


class ObjectsUnavailable(ObjectError):
    """The object store did not answer in time, or not properly. To be answered with 503."""
