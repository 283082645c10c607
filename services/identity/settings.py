"""The settings of the identity service."""

import base64
import binascii
from pathlib import Path

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Read from environment variables that begin with ``LIGHTBOX_IDENTITY_``."""

    model_config = SettingsConfigDict(env_prefix="LIGHTBOX_IDENTITY_", frozen=True, extra="ignore")

    host: str = "127.0.0.1"
    port: int = 8101
    database_url: str = Field(repr=False)
    kafka_bootstrap: str = "127.0.0.1:9092"
    issuer: str = "lightbox"
    public_url: str = "http://127.0.0.1:8080"
    spool_dir: Path
    key_encryption_key: SecretStr = Field(description="32 bytes in base64; seals the private signing keys")
    bootstrap_secret: SecretStr | None = Field(
        default=None, description="secret of the client system.cli, which makes the first tenants"
    )
    access_seconds: int = Field(default=600, ge=60, le=3600, description="lifetime of an access token")
    hashing_threads: int = Field(default=2, ge=1, le=16, description="password hashes at once")
    hashing_rounds: int = Field(default=3, ge=1, le=32, description="Argon2id's time cost")
    hashing_memory_kib: int = Field(default=64 * 1024, ge=8 * 1024, le=1 << 20, description="memory of one hash")
    log_level: str = "INFO"

    @field_validator("key_encryption_key")
    @classmethod
    def _is_a_key(cls, value: SecretStr) -> SecretStr:
        try:
            length = len(base64.b64decode(value.get_secret_value(), validate=True))
        except binascii.Error:
            length = 0
        if length != 32:
            raise ValueError("must be 32 bytes in base64")
        return value

    @property
    def sealing_key(self) -> bytes:
        """The key-encryption key as bytes."""
        return base64.b64decode(self.key_encryption_key.get_secret_value())

    @property
    def secure_cookies(self) -> bool:
        """Whether cookies may travel over TLS only: whenever browsers come by https."""
        return self.public_url.lower().startswith("https://")
