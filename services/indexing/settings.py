"""What can be set from outside."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Read once from the environment, prefix ``LIGHTBOX_INDEXING_``."""

    model_config = SettingsConfigDict(env_prefix="LIGHTBOX_INDEXING_", frozen=True, extra="ignore")

    host: str = "127.0.0.1"
    port: int = 8003
    log_level: str = "INFO"

    database_url: str = Field(repr=False)
    kafka_bootstrap: str = "127.0.0.1:9092"
    s3_endpoint: str
    s3_region: str = "us-east-1"
    s3_access_key: str
    s3_secret_key: str = Field(repr=False)
    bucket_prefix: str = "lightbox"

    max_batch: int = Field(default=200, gt=0, description="the most events that are handled together")
    max_instances: int = Field(default=5000, gt=0, description="instances after which a transaction is closed")
    reads_at_once: int = Field(default=8, gt=0, description="pack indexes that are read at once")
    cache_bytes: int = Field(default=32 << 20, ge=0, description="compressed pack indexes kept in memory")
