"""Scopes, and the roles that give them."""

from collections.abc import Iterable, Mapping
from typing import Final

from libs.tenancy import SYSTEM_TENANT

DICOM_READ: Final = "dicom:read"
DICOM_WRITE: Final = "dicom:write"
AUDIT_READ: Final = "audit:read"
QUARANTINE_ADMIN: Final = "quarantine:admin"
USERS_ADMIN: Final = "users:admin"
TENANTS_ADMIN: Final = "tenants:admin"

SCOPES: Final = frozenset({DICOM_READ, DICOM_WRITE, AUDIT_READ, QUARANTINE_ADMIN, USERS_ADMIN, TENANTS_ADMIN})
"""Every scope there is."""

OPERATOR: Final = "operator"

ROLES: Final[Mapping[str, frozenset[str]]] = {
    "viewer": frozenset({DICOM_READ}),
    "technologist": frozenset({DICOM_READ, DICOM_WRITE}),
    "radiologist": frozenset({DICOM_READ, DICOM_WRITE}),
    "tenant-administrator": frozenset({DICOM_READ, USERS_ADMIN, AUDIT_READ, QUARANTINE_ADMIN}),
    OPERATOR: frozenset({TENANTS_ADMIN}),
}
"""What each role may do. The operator exists in the tenant ``system`` only, and is the only role there."""


def scopes_of(roles: Iterable[str], tenant: str) -> frozenset[str]:
    """The scopes that the roles give in a tenant; a role that does not belong there gives none."""
    wanted = [role for role in roles if (role == OPERATOR) == (tenant == SYSTEM_TENANT)]
    return frozenset().union(*(ROLES.get(role, frozenset()) for role in wanted))
