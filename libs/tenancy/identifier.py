"""Tenant identifiers and what is named after them."""

import re
from typing import Annotated, Final

from pydantic import StringConstraints

PATTERN: Final = r"^[a-z][a-z0-9-]{0,30}[a-z0-9]$"

TenantId = Annotated[str, StringConstraints(pattern=PATTERN)]
"""2 to 32 lower-case letters, digits and hyphens. It is chosen once and never changes, since it is part of
every key; the name that people read is kept apart."""

SYSTEM_TENANT: Final = "system"
"""The tenant of the operators. It holds no patient data and has no bucket."""


class InvalidTenant(ValueError):
    """The text is not a tenant identifier."""


def bucket_name(prefix: str, tenant: str) -> str:
    """The name of the tenant's bucket.

    Arguments:
        prefix: what all buckets of one installation begin with.
        tenant: a tenant identifier.

    Raises:
        InvalidTenant: the identifier is malformed or belongs to the operators.
    """
    if tenant == SYSTEM_TENANT or not re.fullmatch(PATTERN, tenant):
        raise InvalidTenant(f"{tenant!r} has no bucket")
    return f"{prefix}-{tenant}"
