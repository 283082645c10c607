"""A certification authority of this machine, for the DICOM door of its stack (and for tests). Not for production."""

import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from deploy.local.home import Home, locked

DAY: Final = timedelta(days=1)
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_AUTHORITY_LIFETIME: Final = 3650 * DAY
_SERVER_LIFETIME: Final = 365 * DAY
_RENEWED_BEFORE: Final = 30 * DAY


@dataclass(frozen=True)
class Credential:
    """A certificate and its private key, as PEM files.

    Attributes:
        certificate: the certificate.
        key: the key, readable by its owner only.
    """

    certificate: Path
    key: Path

    @property
    def sha256(self) -> str:
        """SHA-256 of the certificate's DER encoding in hexadecimal: how a node is known."""
        return self._read().fingerprint(hashes.SHA256()).hex()

    def lasts(self, time: timedelta) -> bool:
        """Whether both files are there and the certificate is still valid after so long."""
        if not self.certificate.exists() or not self.key.exists():
            return False
        return self._read().not_valid_after_utc > datetime.now(UTC) + time

    def _read(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.certificate.read_bytes())


class Authority:
    """A certification authority whose files lie in a folder; it is made when it is not there.

    Arguments:
        folder: a private folder.
        name: whom its certificate names.

    Attributes:
        credential: its own certificate and key; the certificate is what peers have to trust.
    """

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.credential = Credential(folder / "ca.pem", folder / "ca.key")
        if not self.credential.lasts(DAY):
            self._make(name)
        self._certificate = x509.load_pem_x509_certificate(self.credential.certificate.read_bytes())
        key = load_pem_private_key(self.credential.key.read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self._key = key

    def _make(self, name: str) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _named(name)
        usage = x509.KeyUsage(
            digital_signature=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        builder = (
            _builder(subject, subject, key, -DAY, _AUTHORITY_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )
        _write(self.credential, builder.sign(key, hashes.SHA256()), key)

    def issue(
        self, name: str, stem: Path, *, server: bool = False, begins: timedelta = -DAY, ends: timedelta = 90 * DAY
    ) -> Credential:
        """A certificate for a client, or for a server on this machine.

        Arguments:
            name: whom it names.
            stem: its files are this with ``.pem`` and ``.key``.
            server: for a server at localhost and 127.0.0.1, rather than for a client.
            begins: from when it is valid, from now.
            ends: until when, from now.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        usage = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = (
            _builder(_named(name), self._certificate.subject, key, begins, ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(issuer, critical=False)
        )
        if server:
            names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        made = Credential(stem.with_name(f"{stem.name}.pem"), stem.with_name(f"{stem.name}.key"))
        stem.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(made, builder.sign(self._key, hashes.SHA256()), key)
        return made


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, begins: timedelta, ends: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return x509.CertificateBuilder(
        issuer_name=issuer,
        subject_name=subject,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=now + begins,
        not_valid_after=now + ends,
    )


def _write(credential: Credential, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for path, content in ((credential.key, pem), (credential.certificate, certificate.public_bytes(Encoding.PEM))):
        new = path.with_name(f".{path.name}.{os.getpid()}")
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
        new.replace(path)


@dataclass(frozen=True)
class DimseTls:
    """The certificates of the stack's DICOM door.

    Attributes:
        folder: where they lie.
    """

    folder: Path

    @classmethod
    def of(cls, home: Home) -> "DimseTls":
        """Those of a data folder; the files need not exist yet."""
        return cls(home.folder / "dimse-tls")

    @property
    def authority(self) -> Path:
        """The certificate of the authority: what senders and the door trust."""
        return self.folder / "ca.pem"

    @property
    def server(self) -> Credential:
        """What the door shows."""
        return Credential(self.folder / "server.pem", self.folder / "server.key")

    def client(self, name: str) -> Credential:
        """What ``issue`` has made, or will make, for a name."""
        return Credential(self.folder / "clients" / f"{name}.pem", self.folder / "clients" / f"{name}.key")

    def prepare(self) -> None:
        """Makes the authority and the door's certificate when they are missing, and renews the latter in time."""
        with locked(self.folder.parent / ".dimse-tls.lock"):
            authority = self._open()
            if not self.server.lasts(_RENEWED_BEFORE):
                stem = self.server.certificate.with_suffix("")
                authority.issue("Lightbox on this machine", stem, server=True, ends=_SERVER_LIFETIME)

    def issue(self, name: str, days: int) -> Credential:
        """A client certificate; one of the same name is replaced.

        Arguments:
            name: whom it names.
            days: how long it is valid.

        Raises:
            ValueError: the name can't be that of a file.
        """
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name: letters, digits and . _ - only, a letter or digit first.")
        with locked(self.folder.parent / ".dimse-tls.lock"):
            stem = self.client(name).certificate
            return self._open().issue(name, stem.with_name(name), ends=days * DAY)

    def _open(self) -> Authority:
        return Authority(self.folder, "Lightbox on this machine, DICOM")
