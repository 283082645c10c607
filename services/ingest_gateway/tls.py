"""TLS of the DICOM door: the BCP 195 RFC 8996, 9325 profile (PS3.15 section B.12), client certificate required.

The non-downgrading profile of before (section B.10) is met by the same: nothing below TLS 1.2 is spoken.
"""

import ssl
from pathlib import Path
from typing import Final

CIPHER_SUITES: Final = (
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
)
"""Those of TLS 1.2 that RFC 9325 section 4.2 recommends. The suites of TLS 1.3 are all good and need no choice."""


def server_context(certificate: Path, key: Path, authorities: Path) -> ssl.SSLContext:
    """How the door speaks TLS.

    Arguments:
        certificate: what it shows, followed by its issuers; PEM.
        key: its private key; PEM, without a passphrase.
        authorities: whose client certificates count; PEM.

    Raises:
        OSError: a file can't be read, or does not hold what it should (``ssl.SSLError``).
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(":".join(CIPHER_SUITES))
    # Without tickets each association shows its certificate anew. Renegotiation is needed by nobody (RFC 9325, 3.5).
    context.options |= (
        ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    )
    context.num_tickets = 0
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(cafile=authorities)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def stamp(*files: Path) -> tuple[tuple[int, int], ...]:
    """What changes when one of the files is replaced.

    Raises:
        OSError: one of them is not there.
    """
    return tuple((status.st_mtime_ns, status.st_ino) for status in (file.stat() for file in files))
