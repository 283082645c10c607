"""What can be set from outside."""

import os
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Read once from the environment, prefix ``LIGHTBOX_INGEST_GATEWAY_``. Sizes in bytes, times in seconds."""

    model_config = SettingsConfigDict(env_prefix="LIGHTBOX_INGEST_GATEWAY_", frozen=True)

    host: str = "127.0.0.1"
    port: int = 8001
    log_level: str = "INFO"
    public_url: str = Field(default="http://127.0.0.1:8080", description="the front door, as senders see it")

    database_url: str
    kafka_bootstrap: str
    s3_endpoint: str
    s3_region: str = "us-east-1"
    s3_access_key: str
    s3_secret_key: str = Field(repr=False)
    bucket_prefix: str = "lightbox"
    jwks_url: str
    issuer: str = "lightbox"
    spool_dir: Path = Field(description="a private folder for what is on its way")

    max_request: int = Field(default=16 << 30, gt=0, description="the largest body")
    max_part: int = Field(default=4 << 30, gt=0, description="the largest instance")
    max_parts: int = Field(default=10_000, gt=0, description="the most instances in one request")
    max_metadata: int = Field(default=8 << 20, gt=0, description="the most DICOM JSON in one request")
    max_gzip_ratio: int = Field(
        default=200, gt=0, description="how many times its size a compressed body may inflate to"
    )
    max_part_header: int = Field(default=8192, gt=0, description="the largest block of headers of a part")
    min_free: int = Field(default=1 << 30, ge=0, description="what must stay free on the spool's disk")
    idle_timeout: float = Field(default=60, gt=0, description="how long a sender may be all but silent")
    min_progress: int = Field(default=16 << 10, ge=0, description="what must arrive within one idle time-out")

    pack_instances: int = Field(default=500, gt=0, description="the most instances in one pack")
    pack_bytes: int = Field(default=512 << 20, gt=0, description="the size after which a pack is closed")
    uploads_per_request: int = Field(default=4, gt=0, description="packs of one request that are uploaded at once")
    uploads_at_once: int = Field(default=8, gt=0, description="packs that are uploaded at once, of all requests")

    blocks_at_once: int = Field(
        default_factory=lambda: max(2, os.cpu_count() or 2),
        gt=0,
        description="blocks of 1 MiB that are on their way to the object store at once; of each pack, one",
    )
    fair_burst: int = Field(
        default=64 << 20,
        ge=0,
        description="what a tenant that has stored less than others of late may store before it is their turn again",
    )
    fair_patience: float = Field(
        default=0.25, ge=0, description="how long a tenant that has stored more waits for the work of one that has not"
    )
    fair_recent: float = Field(
        default=2, ge=0, description="how long after its last work a tenant's share is kept free for it"
    )

    requests_at_once: int = Field(default=32, gt=0, description="uploads under way, of all tenants")
    requests_per_tenant: int = Field(default=8, gt=0, description="uploads under way of one tenant")
    requests_waiting: int = Field(default=16, ge=0, description="uploads of one tenant that wait for their turn")
    queue_timeout: float = Field(default=5, ge=0, description="how long an upload waits for its turn")

    store_timeout: float = Field(default=30, gt=0, description="how long the object store may take for a small pack")
    publish_timeout: float = Field(default=10, gt=0, description="how long Kafka may take to acknowledge")
    visible_timeout: float = Field(default=5, ge=0, description="how long a person's upload waits for the catalog")
    lookup_timeout: float = Field(default=2, gt=0, description="how long a look for earlier versions may take")
    rules_age: float = Field(default=15, ge=0, description="how long a tenant's rules are believed, unless they change")
    quarantine_entries: int = Field(default=10_000, gt=0, description="the most entries of a tenant's quarantine")
    quarantine_bytes: int = Field(default=20 << 30, gt=0, description="the most bytes of a tenant's quarantine")
    quarantine_largest: int = Field(default=2 << 30, gt=0, description="the largest entry of a quarantine")
    quarantine_days: int = Field(default=90, gt=0, description="the age at which an entry of a quarantine is removed")
    reconcile_grace: float = Field(default=900, ge=0, description="the age from which a pack should be indexed")
    reconcile_rate: float = Field(default=50, gt=0, description="packs a second that are looked at one by one")
    reconcile_bucket_pause: float = Field(default=900, ge=0, description="between two walks over a bucket")
    reconcile_catalog_pause: float = Field(default=86_400, ge=0, description="between two walks over a catalog")
    threads: int = Field(default=4, gt=0, description="threads for files and headers")

    dimse_host: str = "127.0.0.1"
    dimse_port: int | None = Field(default=None, description="the DICOM door, DIMSE over TLS; closed when not set")
    dimse_certificate: Path | None = Field(default=None, description="what the door shows, with its issuers; PEM")
    dimse_key: Path | None = Field(default=None, description="its private key; PEM")
    dimse_ca: Path | None = Field(default=None, description="the authorities whose client certificates count; PEM")
    dimse_associations: int = Field(default=64, gt=0, description="associations at once, of all tenants")
    dimse_associations_per_tenant: int = Field(default=16, gt=0, description="associations of one tenant at once")
    dimse_bytes_per_tenant: int = Field(default=8 << 30, gt=0, description="what of one tenant may be under way")
    dimse_negotiation_timeout: float = Field(default=10, gt=0, description="from the connection to the association")
    dimse_idle_timeout: float = Field(default=120, gt=0, description="how long an association may be silent")
    dimse_answer_timeout: float = Field(default=20, gt=0, description="how long a small instance may take to be stored")
    dimse_node_seconds: float = Field(default=20, gt=0, description="how long a node counts as known")
    dimse_node_grace: float = Field(default=3600, ge=0, description="the same while the database is away")

    @model_validator(mode="after")
    def _require_certificates(self) -> Self:
        if self.dimse_port is not None and not (self.dimse_certificate and self.dimse_key and self.dimse_ca):
            raise ValueError("the DICOM door needs dimse_certificate, dimse_key and dimse_ca")
        return self
