"""What can be set from outside."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Read once from the environment, prefix ``LIGHTBOX_AUDIT_``."""

    model_config = SettingsConfigDict(env_prefix="LIGHTBOX_AUDIT_", frozen=True)

    host: str = "127.0.0.1"
    port: int = 8005
    log_level: str = "INFO"
    public_url: str = "http://127.0.0.1:8080"

    database_url: str = Field(repr=False)
    kafka_bootstrap: str
    jwks_url: str
    issuer: str = "lightbox"
    spool_dir: Path = Field(description="a private folder for records that wait for Kafka")
    max_batch: int = Field(default=1000, gt=0, description="the most records appended in one transaction")
