"""Browser sessions and failed log-ins. Each function works within a transaction that sees one tenant."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.identity.domain import ATTEMPTS_WINDOW, MAX_SESSIONS, SESSION_IDLE, SESSION_LIFETIME, Limit, User


@dataclass(frozen=True)
class SessionState:
    """A session as it stands.

    Attributes:
        user: whose it is.
        active: neither over, nor idle for too long, nor of a user or tenant that is not active.
        expires_at: when it ends at the latest.
        tenant_name: the name of the user's tenant.
    """

    user: User
    active: bool
    expires_at: datetime
    tenant_name: str


async def insert_session(connection: AsyncConnection, tenant: str, id_hash: bytes, user: str) -> None:
    """A new session of the user; the tenant's ended ones go, and the user's oldest beyond the limit."""
    await connection.execute(
        text(
            "DELETE FROM sessions WHERE tenant_id = :tenant AND (expires_at <= now() "
            "OR seen_at <= now() - CAST(:idle AS interval) OR id_hash IN ("
            "SELECT id_hash FROM sessions WHERE tenant_id = :tenant AND user_name = :user "
            "ORDER BY created_at DESC OFFSET :kept))"
        ),
        {"tenant": tenant, "user": user, "idle": SESSION_IDLE, "kept": MAX_SESSIONS - 1},
    )
    await connection.execute(
        text(
            "INSERT INTO sessions (tenant_id, id_hash, user_name, expires_at) "
            "VALUES (:tenant, :id_hash, :user, now() + CAST(:lifetime AS interval))"
        ),
        {"tenant": tenant, "id_hash": id_hash, "user": user, "lifetime": SESSION_LIFETIME},
    )


async def touch_session(
    connection: AsyncConnection, tenant: str, id_hash: bytes, idle_seconds: int
) -> SessionState | None:
    """The session, seen now (or when its user last did something), or None when there is none."""
    found = (
        await connection.execute(
            text(
                "UPDATE sessions s SET seen_at = CASE WHEN s.seen_at > now() - CAST(:idle AS interval) "
                "THEN greatest(s.seen_at, now() - make_interval(secs => CAST(:quiet AS float8))) ELSE s.seen_at END "
                "FROM users u, tenants t WHERE s.tenant_id = :tenant AND s.id_hash = :id_hash "
                "AND u.tenant_id = s.tenant_id AND u.name = s.user_name AND t.id = s.tenant_id "
                "RETURNING u.name, u.display_name, u.roles, u.active AS user_active, u.created_at, s.expires_at, "
                "t.name AS tenant_name, "
                "(u.active AND t.state = 'active' AND s.expires_at > now() "
                "AND s.seen_at > now() - CAST(:idle AS interval)) AS alive"
            ),
            {"tenant": tenant, "id_hash": id_hash, "idle": SESSION_IDLE, "quiet": float(idle_seconds)},
        )
    ).one_or_none()
    return (
        SessionState(
            User(found.name, found.display_name, tuple(found.roles), found.user_active, found.created_at),
            found.alive,
            found.expires_at,
            found.tenant_name,
        )
        if found
        else None
    )


async def delete_session(connection: AsyncConnection, tenant: str, id_hash: bytes) -> str | None:
    """The name of the user whose session it was, or None when there was none."""
    gone = await connection.execute(
        text("DELETE FROM sessions WHERE tenant_id = :tenant AND id_hash = :id_hash RETURNING user_name"),
        {"tenant": tenant, "id_hash": id_hash},
    )
    name = gone.scalar_one_or_none()
    return None if name is None else str(name)


async def end_sessions(connection: AsyncConnection, tenant: str, user: str | None = None) -> int:
    """Ends all sessions of the user, or of the tenant; returns how many there were."""
    gone = await connection.execute(
        text("DELETE FROM sessions WHERE tenant_id = :tenant AND (CAST(:user AS text) IS NULL OR user_name = :user)"),
        {"tenant": tenant, "user": user},
    )
    return gone.rowcount


_RESERVE = text(
    """
    INSERT INTO login_attempts AS a (tenant_id, subject, failures) VALUES (:tenant, :subject, 1)
    ON CONFLICT (tenant_id, subject) DO UPDATE
    SET since = now(),
        failures = CASE WHEN a.since <= now() - CAST(:window AS interval) THEN 1 ELSE a.failures + 1 END
    WHERE a.failures < CAST(:threshold AS integer)
       OR a.since <= now() - make_interval(secs => least(
            CAST(:longest AS float8),
            CAST(:first AS float8) * power(2, least(a.failures - CAST(:threshold AS integer), 20))))
    RETURNING a.failures
    """
)


async def reserve_attempt(connection: AsyncConnection, tenant: str, subject: str, limit: Limit) -> int | None:
    """Counts an attempt before it is looked at, so that attempts at once can't slip past the limit.

    Returns:
        How many have been counted, this one included; None when the subject is locked out: nothing was counted.
    """
    counted = await connection.execute(
        _RESERVE,
        {
            "tenant": tenant,
            "subject": subject,
            "threshold": limit.failures,
            "first": float(limit.first),
            "longest": float(limit.longest),
            "window": ATTEMPTS_WINDOW,
        },
    )
    failures = counted.scalar_one_or_none()
    return None if failures is None else int(failures)


async def locked_seconds(connection: AsyncConnection, tenant: str, subject: str, limit: Limit) -> int:
    """How much longer the subject is locked out, in whole seconds, at least 1."""
    found = (
        await connection.execute(
            text(
                "SELECT failures, extract(epoch FROM now() - since) AS age FROM login_attempts "
                "WHERE tenant_id = :tenant AND subject = :subject"
            ),
            {"tenant": tenant, "subject": subject},
        )
    ).one_or_none()
    return max(1, int(limit.seconds(found.failures) - float(found.age)) + 1) if found else 1


async def release_attempt(connection: AsyncConnection, tenant: str, subject: str, *, forget: bool) -> None:
    """Takes back the attempt that was counted, since it succeeded; ``forget`` takes back the earlier ones too."""
    await connection.execute(
        text(
            "UPDATE login_attempts SET failures = CASE WHEN :forget THEN 0 ELSE greatest(0, failures - 1) END "
            "WHERE tenant_id = :tenant AND subject = :subject"
        ),
        {"tenant": tenant, "subject": subject, "forget": forget},
    )


async def forget_attempts(connection: AsyncConnection, tenant: str) -> None:
    """Removes what is too old to count."""
    await connection.execute(
        text(
            "DELETE FROM login_attempts WHERE tenant_id = :tenant "
            "AND (since <= now() - CAST(:window AS interval) OR failures = 0)"
        ),
        {"tenant": tenant, "window": ATTEMPTS_WINDOW},
    )
