"""When a pack was stored: the catalog chooses by it, so that it is the same whatever order events come in."""

from collections.abc import Sequence

from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Adds the time; packs that were indexed without it count as the oldest until they are indexed again."""
    op.execute("ALTER TABLE packs ADD COLUMN stored timestamptz NOT NULL DEFAULT '1970-01-01T00:00:00Z'")
    op.execute("ALTER TABLE packs ALTER COLUMN stored DROP DEFAULT")


def downgrade() -> None:
    """Removes it."""
    op.execute("ALTER TABLE packs DROP COLUMN stored")
