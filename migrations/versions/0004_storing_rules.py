"""Rules of storing: what a tenant wants done with duplicates, what was odd about an instance, how far reconciling is.

``packs.rule`` comes from the pack itself. Packs that were stored before rules existed keep the first.
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

SCHEMA = (
    """
    ALTER TABLE tenants
        ADD COLUMN duplicates text NOT NULL DEFAULT 'keep-first'
            CHECK (duplicates IN ('keep-first', 'keep-latest-as-version', 'refuse')),
        ADD COLUMN requests_at_once integer CHECK (requests_at_once BETWEEN 1 AND 1000)
    """,
    # Not the names that people read, nor who is suspended: just what storing depends on.
    "GRANT SELECT (id, duplicates, requests_at_once) ON tenants TO lightbox_ingest_gateway",
    """
    ALTER TABLE packs ADD COLUMN rule text NOT NULL DEFAULT 'keep-first'
        CHECK (rule IN ('keep-first', 'keep-latest'))
    """,
    "ALTER TABLE instances ADD COLUMN warnings text[] NOT NULL DEFAULT '{}'",
    "CREATE INDEX instances_with_warnings ON instances (tenant_id, sop_uid) WHERE warnings <> '{}'",
    "GRANT SELECT ON packs, instance_versions TO lightbox_ingest_gateway",
    """
    CREATE TABLE reconciliations (
        tenant_id   text NOT NULL,
        direction   text NOT NULL CHECK (direction IN ('bucket', 'catalog')),
        position    text NOT NULL DEFAULT '',
        checked     bigint NOT NULL DEFAULT 0,
        found       bigint NOT NULL DEFAULT 0,
        begun_at    timestamptz NOT NULL DEFAULT now(),
        finished_at timestamptz,
        PRIMARY KEY (tenant_id, direction)
    )
    """,
    "ALTER TABLE reconciliations ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE reconciliations FORCE ROW LEVEL SECURITY",
    """
    CREATE POLICY tenant ON reconciliations USING (tenant_id = current_setting('lightbox.tenant', true))
        WITH CHECK (tenant_id = current_setting('lightbox.tenant', true))
    """,
    "GRANT SELECT, INSERT, UPDATE ON reconciliations TO lightbox_ingest_gateway",
)


def upgrade() -> None:
    """Adds columns and a table; nothing that exists changes its meaning."""
    for statement in SCHEMA:
        op.execute(statement)


def downgrade() -> None:
    """Removes them."""
    op.execute("DROP TABLE reconciliations")
    op.execute("REVOKE SELECT ON packs, instance_versions FROM lightbox_ingest_gateway")
    op.execute("ALTER TABLE instances DROP COLUMN warnings")
    op.execute("ALTER TABLE packs DROP COLUMN rule")
    op.execute("ALTER TABLE tenants DROP COLUMN duplicates, DROP COLUMN requests_at_once")
