"""The rules of the DICOM door: whom it lets in, and which DIMSE status an outcome has."""

import re
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

from services.ingest_gateway.domain import Outcome

SUCCESS: Final = 0x0000
NOT_AUTHORISED: Final = 0x0124

PERMANENT: Final = 1
TRANSIENT: Final = 2
BY_USER: Final = 1
BY_PROVIDER: Final = 3
"""The presentation-related function of the service provider: the one that has reasons for passing conditions."""


@dataclass(frozen=True)
class Refusal:
    """Why an association is refused.

    Attributes:
        words: for the log and the audit record.
        result: of the A-ASSOCIATE-RJ (PS3.8 table 9-21): 1 permanent, 2 transient.
        source: 1 service user, 3 service provider (presentation).
        reason: one of the table, by source.
    """

    words: str
    result: int = PERMANENT
    source: int = BY_USER
    reason: int = 1


UNKNOWN: Final = Refusal("no node has this certificate and called AE title", reason=7)
CALLING_NOT_LISTED: Final = Refusal("the calling AE title is not on the node's list", reason=3)
ADDRESS_NOT_LISTED: Final = Refusal("the address is in none of the node's networks")
DISABLED: Final = Refusal("the node is disabled")
SUSPENDED: Final = Refusal("the clinic is suspended")
TOO_MANY: Final = Refusal("too many associations of this clinic", TRANSIENT, BY_PROVIDER, 2)
NODES_AWAY: Final = Refusal("nodes can't be looked up at the moment", TRANSIENT, BY_PROVIDER, 1)


@dataclass(frozen=True)
class Node:
    """A sender that a tenant lets in.

    Attributes:
        tenant: whose instances it stores.
        name: its name within the tenant.
        active: whether its clinic is; one that is suspended takes nothing in.
        enabled: whether it is let in.
        calling_ae_titles: what it may call itself; anything when there are none.
        networks: where it may come from, in CIDR notation; anywhere when there are none.
    """

    tenant: str
    name: str
    active: bool
    enabled: bool
    calling_ae_titles: tuple[str, ...]
    networks: tuple[str, ...]

    def refusal(self, calling_ae_title: str, address: str) -> Refusal | None:
        """Why somebody with the node's certificate is not let in; None when nothing speaks against it."""
        if not self.active:
            return SUSPENDED
        if not self.enabled:
            return DISABLED
        if self.calling_ae_titles and calling_ae_title not in self.calling_ae_titles:
            return CALLING_NOT_LISTED
        if self.networks and not _within(address, self.networks):
            return ADDRESS_NOT_LISTED
        return None


def plain_address(address: str) -> str:
    """The address; an IPv4 address in IPv6 clothes, as a listener for both sees it, as IPv4."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    mapped = parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None
    return str(mapped or parsed)


def _within(address: str, networks: tuple[str, ...]) -> bool:
    try:
        parsed = ip_address(plain_address(address))
    except ValueError:
        return False
    return any(parsed in ip_network(network) for network in networks)


def store_status(outcome: Outcome) -> tuple[int, str]:
    """Status and Error Comment of the answer to a C-STORE (PS3.4 table B.2-1, PS3.7 annex C).

    Failure and Warning Reasons of the Store transaction are the same codes, so that both doors say the same.
    """
    reason = outcome.failure or outcome.warning
    return (reason.code, reason.words) if reason is not None else (SUCCESS, "")


def handshake_refusal(reason: str) -> str | None:
    """What the audit record says of a TLS handshake that failed; None where nobody was refused, but only went away.

    Arguments:
        reason: the error in the words of the TLS library.
    """
    found = re.match(r"\[SSL: (\w+)\] (.+?)(?: \(_ssl\.c:\d+\))?$", reason)
    if found is None or found.group(1) == "UNEXPECTED_EOF_WHILE_READING":
        return None
    return f"TLS: {found.group(2)[:200]}"
