"""What can be set from outside."""

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Read once from the environment, prefix ``LIGHTBOX_DICOMWEB_``.

    Attributes:
        host: address to listen on.
        port: port to listen on.
        database_url: the catalog, as ``postgresql+asyncpg://…``.
        kafka_bootstrap: ``host:port`` of one broker or more.
        s3_endpoint: address of the object store.
        s3_region: its region.
        s3_access_key: access key id.
        s3_secret_key: secret access key.
        bucket_prefix: what the tenants' buckets begin with.
        jwks_url: where identity publishes the keys that tokens are checked with.
        issuer: who must have issued a token.
        public_url: the front door, as callers see it; part of every Retrieve URL.
        spool_dir: a private folder for audit records that wait for Kafka.
        log_level: the lowest level that is logged.
        pool_size: connections to the catalog.
        worker_processes: processes that decode and render.
        worker_seconds: how long one image may take before its process is killed.
        largest_transcode: bytes of a stored instance up to which it is rewritten in another transfer syntax.
        index_cache: bytes of pack indexes kept in memory.
        document_cache: bytes of metadata documents kept in memory.
        rendered_cache: bytes of rendered images kept in memory.
    """

    model_config = SettingsConfigDict(env_prefix="LIGHTBOX_DICOMWEB_", frozen=True)

    host: str = "127.0.0.1"
    port: int = 8004
    database_url: SecretStr
    kafka_bootstrap: str
    s3_endpoint: str
    s3_region: str = "us-east-1"
    s3_access_key: str
    s3_secret_key: SecretStr
    bucket_prefix: str = "lightbox"
    jwks_url: str
    issuer: str = "lightbox"
    public_url: str = "http://127.0.0.1:8080"
    spool_dir: Path
    log_level: str = "INFO"
    pool_size: int = Field(default=8, ge=1, le=100)
    worker_processes: int = Field(default=2, ge=1, le=64)
    worker_seconds: float = Field(default=20, gt=0)
    largest_transcode: int = Field(default=256 << 20, ge=1)
    index_cache: int = Field(default=64 << 20, ge=0)
    document_cache: int = Field(default=64 << 20, ge=0)
    rendered_cache: int = Field(default=32 << 20, ge=0)
