"""Reading the client certificates that a tenant registers for its nodes (RFC 5280)."""

import re
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from services.identity.domain import RuleBroken
from services.identity.domain_nodes import NodeCertificate

MAX_TEXT: Final = 16384
_LONGEST_SUBJECT: Final = 200


def read_certificate(text: str) -> NodeCertificate:
    """A certificate, from PEM or from its fingerprint alone.

    Arguments:
        text: PEM, of which the first certificate counts (that of the node; those of its issuers may follow), or the
            SHA-256 of the DER encoding as 64 hexadecimal digits, with or without colons.

    Raises:
        RuleBroken: it is neither.
    """
    digits = text.strip().replace(":", "").lower()
    if re.fullmatch(r"[0-9a-f]{64}", digits):
        return NodeCertificate(bytes.fromhex(digits))
    if "PRIVATE KEY" in text:
        raise RuleBroken("That holds a private key. It stays with the device; give its certificate only.")
    try:
        certificate = x509.load_pem_x509_certificates(text.encode())[0]
        subject = certificate.subject.rfc4514_string()
    except (ValueError, IndexError):
        raise RuleBroken("A certificate is given in PEM, or by its SHA-256 fingerprint (64 hex digits).") from None
    printable = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in subject)
    return NodeCertificate(
        certificate.fingerprint(hashes.SHA256()), printable[:_LONGEST_SUBJECT], certificate.not_valid_after_utc
    )
