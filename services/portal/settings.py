"""Settings, read once from the environment (prefix ``LIGHTBOX_PORTAL_``)."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """What the service needs to know.

    Attributes:
        page_size: studies on one page of the worklist.
        streams_per_tenant: open live connections that one tenant may have.
        streams: open live connections altogether.
        stream_seconds: how long a live connection lasts; the browser then opens another, with its current session.
    """

    model_config = SettingsConfigDict(env_prefix="LIGHTBOX_PORTAL_", frozen=True)

    host: str = "127.0.0.1"
    port: int = 8006
    database_url: str
    kafka_bootstrap: str
    jwks_url: str
    issuer: str = "lightbox"
    public_url: str = "http://127.0.0.1:8080"
    spool_dir: Path
    log_level: str = "INFO"
    page_size: int = Field(default=50, ge=1, le=500)
    streams_per_tenant: int = Field(default=200, ge=1)
    streams: int = Field(default=2000, ge=1)
    stream_seconds: float = Field(default=300.0, gt=0)
