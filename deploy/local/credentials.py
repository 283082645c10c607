"""Passwords and keys of the stack: made here, by chance, once."""

import base64
import secrets
import uuid
from dataclasses import asdict, dataclass
from typing import Self

from deploy.local.home import Home, locked, read_json, write_json

DATABASE_ROLES = ("identity", "ingest_gateway", "indexing", "dicomweb", "portal", "audit")


@dataclass(frozen=True)
class Credentials:
    """All secrets of one stack.

    Attributes:
        database_superuser: password of PostgreSQL's role ``postgres``.
        database_owner: password of the role that owns the tables.
        database_roles: password of the login role of each service, by service.
        s3_access_key: the installation's S3 access key.
        s3_secret_key: its secret.
        kafka_cluster: the id that Kafka's log folder was formatted with.
        identity_bootstrap_secret: secret of the client ``system.cli``.
        key_encryption_key: 32 bytes in base64; seals the private signing keys in the database.
    """

    database_superuser: str
    database_owner: str
    database_roles: dict[str, str]
    s3_access_key: str
    s3_secret_key: str
    kafka_cluster: str
    identity_bootstrap_secret: str
    key_encryption_key: str

    @classmethod
    def generate(cls) -> Self:
        """New secrets."""
        return cls(
            database_superuser=secrets.token_urlsafe(24),
            database_owner=secrets.token_urlsafe(24),
            database_roles={role: secrets.token_urlsafe(24) for role in DATABASE_ROLES},
            s3_access_key=secrets.token_hex(10).upper(),
            s3_secret_key=secrets.token_urlsafe(30),
            kafka_cluster=base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("="),
            identity_bootstrap_secret=secrets.token_urlsafe(32),
            key_encryption_key=base64.b64encode(secrets.token_bytes(32)).decode(),
        )


def load_credentials(home: Home) -> Credentials:
    """The secrets of this data folder, made and written down the first time.

    Raises:
        ValueError: the file is damaged; the data of the servers can't be read without it.
    """
    with locked(home.folder / ".secrets.lock"):
        known = read_json(home.secrets_file)
        if not known:
            made = Credentials.generate()
            write_json(home.secrets_file, asdict(made), durable=True)
            return made
    try:
        found = Credentials(**known)
    except TypeError as error:
        raise ValueError(f"{home.secrets_file} is not complete: {error}") from error
    return found
