"""What can be set from outside, once, at the start."""

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

MIB = 1 << 20


class Settings(BaseSettings):
    """Environment variables with the prefix ``LIGHTBOX_EDGE_GATEWAY_``.

    Attributes:
        host: where the HTTP side (health, status) listens.
        port: its port.
        spool_dir: private folder of the spool and its journal.
        ae_title: the AE title that scanners call.
        dimse_host: where the DICOM side listens.
        dimse_port: its port.
        accept_any_called_ae_title: take associations that call another AE title.
        calling_ae_titles: the only AE titles that may send, separated by commas; empty means all.
        cloud_url: the front door, such as ``https://pacs.example.org``; plain http only on this machine.
        ca_file: certificates to trust instead of the system's.
        client_id: the OAuth2 client of this edge, ``TENANT.NAME``.
        client_secret: its secret.
        minimum_free_bytes: refuse with A700 when storing would leave less than this on the disk.
        maximum_instance_bytes: the largest data set that is taken.
        segment_bytes: the size of the spool's segments, which are written over in place.
        spare_bytes: how much of the disk is kept ready as spare segments; a twentieth of what is free at most.
        maximum_associations: how many associations at once.
        associations_per_peer: how many of them from one address.
        negotiation_timeout: seconds within which a peer must have said what it wants.
        network_timeout: seconds that an open association may be idle.
        uploads: how many requests to the cloud at once.
        batch_instances: the most instances in one request.
        batch_bytes: the most bytes in one request; a larger instance goes alone.
        log_level: the lowest level that is written.
    """

    model_config = SettingsConfigDict(env_prefix="LIGHTBOX_EDGE_GATEWAY_", frozen=True)

    host: str = "127.0.0.1"
    port: int = 8070
    spool_dir: Path
    ae_title: str = Field("LIGHTBOX", min_length=1, max_length=16, pattern=r"^[ -\[\]-~]+$")
    dimse_host: str = "127.0.0.1"
    dimse_port: int = 11112
    accept_any_called_ae_title: bool = False
    calling_ae_titles: Annotated[tuple[str, ...], NoDecode] = ()
    cloud_url: str
    ca_file: Path | None = None
    client_id: str
    client_secret: SecretStr
    minimum_free_bytes: int = Field(512 * MIB, ge=0)
    maximum_instance_bytes: int = Field(2048 * MIB, gt=0)
    segment_bytes: int = Field(32 * MIB, ge=MIB, multiple_of=MIB)
    spare_bytes: int = Field(512 * MIB, ge=0)
    maximum_associations: int = Field(128, gt=0, le=512)
    associations_per_peer: int = Field(64, gt=0, le=512)
    negotiation_timeout: float = Field(10.0, gt=0)
    network_timeout: float = Field(120.0, gt=0)
    uploads: int = Field(2, gt=0, le=16)
    batch_instances: int = Field(100, gt=0, le=1000)
    batch_bytes: int = Field(64 * MIB, gt=0)
    log_level: str = "INFO"

    @field_validator("calling_ae_titles", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(title.strip() for title in value.split(",") if title.strip())
        return value

    @field_validator("cloud_url")
    @classmethod
    def _encrypted_outside(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("the address of the cloud must begin with https://")
        if parts.scheme == "http" and not _is_this_machine(parts.hostname):
            raise ValueError("images leave this machine by https:// only")
        return value.rstrip("/")


def _is_this_machine(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
