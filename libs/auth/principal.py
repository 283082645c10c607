"""The caller, as a verified token describes it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Principal:
    """Who is calling, and for which tenant.

    Attributes:
        tenant: the only tenant whose resources exist for this caller.
        subject: ``user:NAME`` or ``client:NAME``, unique within the tenant.
        name: the name to show.
        scopes: what the caller may do.
        roles: the user's roles; empty for a client.
        session: the public id of the browser session that the token came from, if any.
        tenant_name: the tenant's name for people to read, where the token carries it.
    """

    tenant: str
    subject: str
    name: str
    scopes: frozenset[str]
    roles: tuple[str, ...] = ()
    session: str | None = None
    tenant_name: str = ""

    @property
    def is_user(self) -> bool:
        """Whether this is a person, not a machine."""
        return self.subject.startswith("user:")

    def has(self, scope: str) -> bool:
        """Whether the caller holds the scope."""
        return scope in self.scopes
