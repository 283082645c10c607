"""The tenant: its identifier, the names derived from it, and the database transaction that is bound to it."""

from libs.tenancy.identifier import SYSTEM_TENANT, InvalidTenant, TenantId, bucket_name
from libs.tenancy.session import DATABASE_ERRORS, create_engine, tenant_transaction

__all__ = [
    "DATABASE_ERRORS",
    "SYSTEM_TENANT",
    "InvalidTenant",
    "TenantId",
    "bucket_name",
    "create_engine",
    "tenant_transaction",
]
