"""The rules of identity: names, passwords, secrets, sessions, lock-out, where a log-in may lead."""

import hashlib
import re
import secrets
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv6Address, ip_address
from typing import Final
from urllib.parse import urlsplit

from libs.auth.scopes import OPERATOR, ROLES, SCOPES, TENANTS_ADMIN
from libs.tenancy import SYSTEM_TENANT
from libs.tenancy.identifier import PATTERN as TENANT_PATTERN

USER_NAME: Final = r"^[a-z0-9][a-z0-9._@-]{0,63}$"
CLIENT_NAME: Final = r"^[a-z0-9][a-z0-9._-]{0,62}$"
MIN_PASSWORD: Final = 12
MAX_PASSWORD_BYTES: Final = 1024
MAX_NAME: Final = 200

SESSION_LIFETIME: Final = timedelta(hours=12)
SESSION_IDLE: Final = timedelta(minutes=60)
MAX_SESSIONS: Final = 20
"""Sessions of one user at a time; the oldest ends when there would be more."""

ATTEMPTS_WINDOW: Final = timedelta(hours=1)
"""Failures are forgotten when this long has passed since the last one."""


class RuleBroken(ValueError):
    """Something breaks a rule; the text says which, for the caller to read."""


@dataclass(frozen=True)
class Limit:
    """After how many failures a lock-out begins, and how it grows: it doubles with each further failure.

    Attributes:
        failures: failures that are let pass.
        first: seconds of the first lock-out.
        longest: seconds of the longest.
    """

    failures: int
    first: int
    longest: int

    def seconds(self, failures: int) -> int:
        """How long to wait after so many failures; 0 when there is no lock-out yet."""
        if failures < self.failures:
            return 0
        return min(self.longest, self.first << min(failures - self.failures, 20))


USER_LIMIT: Final = Limit(failures=5, first=30, longest=900)
ADDRESS_LIMIT: Final = Limit(failures=50, first=30, longest=900)
CLIENT_LIMIT: Final = Limit(failures=10, first=15, longest=60)


@dataclass(frozen=True)
class Tenant:
    """A tenant.

    Attributes:
        id: its identifier.
        name: the name that people read.
        state: active or suspended.
        created_at: when it was made.
        duplicates: what is done with an instance whose UID is taken by other bytes.
        requests_at_once: uploads of it that are under way at once; None for what the ingest gateway is set to.
    """

    id: str
    name: str
    state: str
    created_at: datetime
    duplicates: str
    requests_at_once: int | None

    @property
    def active(self) -> bool:
        """Whether its users and clients get tokens."""
        return self.state == "active"


@dataclass(frozen=True)
class TenantChange:
    """What is to change of a tenant; what is None stays. 0 requests at once takes the tenant's own limit away."""

    name: str | None = None
    state: str | None = None
    duplicates: str | None = None
    requests_at_once: int | None = None

    def in_words(self) -> str:
        """What changes, for the audit record."""
        parts = [
            *(["name"] if self.name is not None else []),
            *([f"state {self.state}"] if self.state is not None else []),
            *([f"duplicates {self.duplicates}"] if self.duplicates is not None else []),
            *(
                [f"requests at once {self.requests_at_once or 'by default'}"]
                if self.requests_at_once is not None
                else []
            ),
        ]
        return ", ".join(parts) or "nothing"


@dataclass(frozen=True)
class User:
    """A person who logs in."""

    name: str
    display_name: str
    roles: tuple[str, ...]
    active: bool
    created_at: datetime


@dataclass(frozen=True)
class Client:
    """A machine that gets tokens with a secret: an edge gateway, an integrator's program."""

    name: str
    scopes: tuple[str, ...]
    active: bool
    created_at: datetime


def is_tenant(text: str) -> bool:
    """Whether the text is a well-formed tenant identifier."""
    return re.fullmatch(TENANT_PATTERN, text) is not None


def require_name(name: str, pattern: str, what: str) -> str:
    """The name, if it follows the pattern.

    Raises:
        RuleBroken: it does not.
    """
    if not re.fullmatch(pattern, name):
        raise RuleBroken(f"A {what} has lower-case letters, digits and . _ - only, and begins with a letter or digit.")
    return name


def require_text(text: str, what: str) -> str:
    """A text for people: 1 to 200 printable characters.

    Raises:
        RuleBroken: it is empty, too long, or has control characters.
    """
    cleaned = text.strip()
    if not 1 <= len(cleaned) <= MAX_NAME or any(unicodedata.category(c) in ("Cc", "Cs", "Cn") for c in cleaned):
        raise RuleBroken(f"{what} has 1 to {MAX_NAME} printable characters.")
    return cleaned


def normal_password(password: str) -> str:
    """The password as it is hashed: the same for the same keys, however a device composes accents (NFKC)."""
    return unicodedata.normalize("NFKC", password)


def require_password(password: str, user: str) -> str:
    """The normalised password of a user, if it may be used.

    Raises:
        RuleBroken: too short, too long, or the user's name.
    """
    normal = normal_password(password)
    if len(normal) < MIN_PASSWORD:
        raise RuleBroken(f"A password has at least {MIN_PASSWORD} characters.")
    if len(normal.encode("utf-8", "surrogatepass")) > MAX_PASSWORD_BYTES:
        raise RuleBroken(f"A password has at most {MAX_PASSWORD_BYTES} bytes.")
    if normal.casefold() == user.casefold():
        raise RuleBroken("The user's name can't be the password.")
    if len(set(normal)) == 1:
        raise RuleBroken("A password needs more than one character that differs.")
    return normal


def require_roles(roles: Iterable[str], tenant: str) -> tuple[str, ...]:
    """The roles, sorted and each once, if they exist in this tenant.

    Raises:
        RuleBroken: there is none, or one does not belong to this tenant.
    """
    wanted = tuple(sorted(set(roles)))
    allowed = {OPERATOR} if tenant == SYSTEM_TENANT else set(ROLES) - {OPERATOR}
    if not wanted or not set(wanted) <= allowed:
        raise RuleBroken(f"A user has at least one of these roles: {', '.join(sorted(allowed))}.")
    return wanted


def require_scopes(scopes: Iterable[str], tenant: str) -> tuple[str, ...]:
    """The scopes, sorted and each once, if a client of this tenant may hold them.

    Raises:
        RuleBroken: there is none, or one does not belong to this tenant.
    """
    wanted = tuple(sorted(set(scopes)))
    allowed = {TENANTS_ADMIN} if tenant == SYSTEM_TENANT else SCOPES - {TENANTS_ADMIN}
    if not wanted or not set(wanted) <= allowed:
        raise RuleBroken(f"A client has at least one of these scopes: {', '.join(sorted(allowed))}.")
    return wanted


def new_secret() -> str:
    """A secret of 256 random bits, safe in URLs and headers."""
    return secrets.token_urlsafe(32)


def new_password() -> str:
    """A random password that can be read aloud: six groups of four, 113 bits."""
    alphabet = "abcdefghjkmnpqrstuvwxyz23456789"
    groups = ("".join(secrets.choice(alphabet) for _ in range(4)) for _ in range(6))
    return "-".join(groups)


def secret_hash(secret: str) -> bytes:
    """What is stored of a random secret. It has 256 bits of its own, so that no slow hash is needed."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def session_cookie(tenant: str, secret: str) -> str:
    """The value of the session cookie. It names the tenant, under which alone the session can be found."""
    return f"{tenant}.{secret}"


def parse_session_cookie(value: str) -> tuple[str, str] | None:
    """Tenant and secret of a session cookie, or None when it is malformed."""
    tenant, _, secret = value.partition(".")
    if not is_tenant(tenant) or not re.fullmatch(r"[A-Za-z0-9_-]{43}", secret):
        return None
    return tenant, secret


def session_name(id_hash: bytes) -> str:
    """The public name of a session (the token's ``sid``); it does not lead back to the secret."""
    return hashlib.sha256(id_hash).hexdigest()[:16]


def local_path(target: str) -> str:
    """Where to go after a log-in: the target if it is a path of this site, else the home page.

    Browsers drop tabs and newlines and read a backslash as a slash, so all of these are refused.
    """
    parts = urlsplit(target) if len(target) <= 2048 and target.isprintable() else None
    if (
        parts is None
        or parts.scheme
        or parts.netloc
        or not target.startswith("/")
        or target.startswith("//")
        or "\\" in target
    ):
        return "/"
    return target


def user_attempts(name: str, *, known: bool) -> str:
    """Under what a user's failed log-ins are counted.

    Names that don't exist share 4096 rows, so that made-up names can't fill the table, and are locked like real ones.
    """
    return f"user:{name}" if known else f"unknown:{_bucket(name, 3)}"


def address_attempts(address: str) -> str:
    """Under what the failed log-ins from an address are counted: one of 65536 rows; IPv6 counts by its /64."""
    return f"address:{_bucket(_network(address), 4)}"


def client_attempts(client: str, address: str) -> str:
    """Under what a client's refusals are counted: by address, so that nobody can lock out a clinic's edge."""
    return f"client:{_bucket(f'{client} {_network(address)}', 4)}"


def _network(address: str) -> str:
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    return parsed.exploded[:19] if isinstance(parsed, IPv6Address) else str(parsed)


def _bucket(text: str, digits: int) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:digits]
