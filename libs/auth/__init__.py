"""Who is calling: tokens and their verification, scopes and roles, FastAPI dependencies."""

from libs.auth.dependencies import ACCESS_COOKIE, Authenticated, Refusal, is_same_origin, origin_of
from libs.auth.principal import Principal
from libs.auth.scopes import (
    AUDIT_READ,
    DICOM_READ,
    DICOM_WRITE,
    OPERATOR,
    QUARANTINE_ADMIN,
    ROLES,
    SCOPES,
    TENANTS_ADMIN,
    USERS_ADMIN,
    scopes_of,
)
from libs.auth.verifier import ALGORITHM, AUDIENCE, JWKS_CACHE_SECONDS, TokenVerifier

__all__ = [
    "ACCESS_COOKIE",
    "ALGORITHM",
    "AUDIENCE",
    "AUDIT_READ",
    "DICOM_READ",
    "DICOM_WRITE",
    "JWKS_CACHE_SECONDS",
    "OPERATOR",
    "QUARANTINE_ADMIN",
    "ROLES",
    "SCOPES",
    "TENANTS_ADMIN",
    "USERS_ADMIN",
    "Authenticated",
    "Principal",
    "Refusal",
    "TokenVerifier",
    "is_same_origin",
    "origin_of",
    "scopes_of",
]
