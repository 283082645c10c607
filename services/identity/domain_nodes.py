"""The rules of nodes: AE titles, networks, and which called AE title a tenant gets when it asks for none."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_network
from typing import Final

from services.identity.domain import RuleBroken

AE_TITLE: Final = r"[!-\[\]-~]([ -\[\]-~]{0,14}[!-\[\]-~])?"
"""1 to 16 characters, no backslash, no control characters; spaces within only (PS3.5 section 6.2, VR AE)."""
MAX_CERTIFICATES: Final = 8
MAX_CALLING: Final = 64
MAX_NETWORKS: Final = 64
_LONGEST_TITLE: Final = 16


@dataclass(frozen=True)
class NodeCertificate:
    """A client certificate of a node.

    Attributes:
        fingerprint: SHA-256 of its DER encoding, 32 bytes.
        subject: whom it names, for people; empty where only the fingerprint was given.
        not_after: until when it is valid, where that is known.
    """

    fingerprint: bytes
    subject: str = ""
    not_after: datetime | None = None


@dataclass(frozen=True)
class Node:
    """A sender that a tenant lets in through the cloud's own DICOM door.

    Attributes:
        name: its name within the tenant.
        called_ae_title: what it calls us; together with a certificate it names the tenant.
        calling_ae_titles: what it may call itself; anything when there are none.
        networks: where it may come from, in CIDR notation; anywhere when there are none.
        enabled: whether it is let in.
        certificates: any of them identifies it; several while one is replaced by the next.
        created_at: when it was registered.
    """

    name: str
    called_ae_title: str
    calling_ae_titles: tuple[str, ...]
    networks: tuple[str, ...]
    enabled: bool
    certificates: tuple[NodeCertificate, ...]
    created_at: datetime


def require_ae_title(title: str) -> str:
    """The AE title without the spaces around it, which do not count.

    Raises:
        RuleBroken: it is none.
    """
    cleaned = title.strip(" ")
    if not re.fullmatch(AE_TITLE, cleaned):
        raise RuleBroken("An AE title has 1 to 16 ASCII characters, without backslash and control characters.")
    return cleaned


def require_ae_titles(titles: Iterable[str]) -> tuple[str, ...]:
    """The AE titles, sorted and each once.

    Raises:
        RuleBroken: one of them is none, or there are too many.
    """
    cleaned = tuple(sorted({require_ae_title(title) for title in titles}))
    if len(cleaned) > MAX_CALLING:
        raise RuleBroken(f"A node has at most {MAX_CALLING} calling AE titles.")
    return cleaned


def require_networks(networks: Iterable[str]) -> tuple[str, ...]:
    """The networks in CIDR notation, sorted and each once; an address alone is a network of one.

    Raises:
        RuleBroken: one of them is none, or there are too many.
    """
    found = set()
    for network in networks:
        try:
            found.add(ip_network(network.strip()))
        except ValueError:
            raise RuleBroken(
                "A network is an address, or one with its length and no bits beyond it: 192.0.2.0/24, 2001:db8::/48."
            ) from None
    if len(found) > MAX_NETWORKS:
        raise RuleBroken(f"A node has at most {MAX_NETWORKS} networks.")
    return tuple(str(network) for network in sorted(found, key=lambda n: (n.version, n.network_address, n.prefixlen)))


def require_certificates(certificates: Sequence[NodeCertificate]) -> tuple[NodeCertificate, ...]:
    """The certificates, each once.

    Raises:
        RuleBroken: there is none, or there are too many.
    """
    found = tuple({certificate.fingerprint: certificate for certificate in certificates}.values())
    if not 1 <= len(found) <= MAX_CERTIFICATES:
        raise RuleBroken(f"A node has 1 to {MAX_CERTIFICATES} certificates.")
    return found


def own_titles(tenant: str) -> Iterator[str]:
    """Called AE titles for a tenant that asks for none: its identifier in capitals, then with a mark of its own.

    An identifier may be longer than an AE title, and its capitals may be held by another tenant.
    """
    plain = tenant.upper()
    if len(plain) <= _LONGEST_TITLE:
        yield plain
    for number in range(100):
        mark = hashlib.sha256(f"{tenant}/{number}".encode()).hexdigest()[:4].upper()
        yield f"{plain[: _LONGEST_TITLE - 5]}-{mark}"
