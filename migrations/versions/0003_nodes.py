"""Nodes: the DICOM senders that a tenant lets in through the cloud's own DICOM door.

A called AE title is handed out to one tenant of the installation. So a certificate together with a called AE title
leads to one tenant at most, and no tenant learns from a refusal which certificates another one has registered.
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

SCHEMA = (
    # Of the installation, like ``tenants``: which tenant holds a title. No tenant reads it.
    """
    CREATE TABLE called_ae_titles (
        title  text PRIMARY KEY CHECK (length(title) BETWEEN 1 AND 16),
        holder text NOT NULL REFERENCES tenants (id),
        UNIQUE (holder, title)
    )
    """,
    """
    CREATE TABLE nodes (
        tenant_id         text NOT NULL REFERENCES tenants (id),
        name              text NOT NULL,
        called_ae_title   text NOT NULL,
        calling_ae_titles text[] NOT NULL DEFAULT '{}',
        networks          text[] NOT NULL DEFAULT '{}',
        enabled           boolean NOT NULL DEFAULT true,
        created_at        timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (tenant_id, name),
        UNIQUE (tenant_id, name, called_ae_title),
        FOREIGN KEY (tenant_id, called_ae_title) REFERENCES called_ae_titles (holder, title)
    )
    """,
    """
    CREATE TABLE node_certificates (
        tenant_id       text NOT NULL,
        called_ae_title text NOT NULL,
        fingerprint     bytea NOT NULL CHECK (length(fingerprint) = 32),
        node            text NOT NULL,
        subject         text NOT NULL DEFAULT '',
        not_after       timestamptz,
        PRIMARY KEY (tenant_id, called_ae_title, fingerprint),
        FOREIGN KEY (tenant_id, node, called_ae_title) REFERENCES nodes (tenant_id, name, called_ae_title)
            ON DELETE CASCADE
    )
    """,
    "CREATE INDEX node_certificates_by_node ON node_certificates (tenant_id, node)",
)

LOOKUP = (
    # Before a certificate is known to belong to a tenant there is no tenant to set, so the lookup runs as a role of its
    # own, and answers for one pair of certificate and title only.
    "CREATE POLICY lookup ON nodes FOR SELECT TO lightbox_nodes USING (true)",
    "CREATE POLICY lookup ON node_certificates FOR SELECT TO lightbox_nodes USING (true)",
    "GRANT SELECT ON tenants, called_ae_titles, nodes, node_certificates TO lightbox_nodes",
    """
    CREATE FUNCTION find_node(wanted_fingerprint bytea, wanted_title text)
        RETURNS TABLE (tenant text, state text, node text, enabled boolean, calling_ae_titles text[], networks text[])
        LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp
        AS $$ SELECT t.id, t.state, n.name, n.enabled, n.calling_ae_titles, n.networks
              FROM called_ae_titles a
              JOIN tenants t ON t.id = a.holder
              JOIN node_certificates c ON c.tenant_id = a.holder AND c.called_ae_title = a.title
              JOIN nodes n ON n.tenant_id = c.tenant_id AND n.name = c.node
              WHERE a.title = wanted_title AND c.fingerprint = wanted_fingerprint $$
    """,
    # Before it changes hands: afterwards the owner of the tables may not, and PostgreSQL only warns.
    "REVOKE ALL ON FUNCTION find_node(bytea, text) FROM PUBLIC",
    "GRANT EXECUTE ON FUNCTION find_node(bytea, text) TO lightbox_ingest_gateway",
    "ALTER FUNCTION find_node(bytea, text) OWNER TO lightbox_nodes",
)

SEARCHING = "FUNCTION studies_named(text), studies_with_modality(text[])"


def upgrade() -> None:
    """Creates the tables, and the function that finds a node before its tenant is known."""
    op.execute("DO $$ BEGIN CREATE ROLE lightbox_nodes NOLOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
    op.execute("GRANT CREATE ON SCHEMA public TO lightbox_nodes")
    op.execute("GRANT lightbox_nodes TO current_user WITH INHERIT FALSE, SET TRUE")
    for statement in SCHEMA:
        op.execute(statement)
    for table in ("nodes", "node_certificates"):
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY tenant ON {table} USING (tenant_id = current_setting('lightbox.tenant', true)) "
            "WITH CHECK (tenant_id = current_setting('lightbox.tenant', true))"
        )
    for statement in LOOKUP:
        op.execute(statement)
    op.execute("REVOKE CREATE ON SCHEMA public FROM lightbox_nodes")
    # What the first migration meant to revoke, and could not, for the reason given above.
    op.execute("SET LOCAL ROLE lightbox_search")
    op.execute(f"REVOKE ALL ON {SEARCHING} FROM PUBLIC")
    op.execute(f"GRANT EXECUTE ON {SEARCHING} TO lightbox_dicomweb, lightbox_portal")
    op.execute("RESET ROLE")
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON called_ae_titles TO lightbox_identity")
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON nodes, node_certificates TO lightbox_identity")


def downgrade() -> None:
    """Removes it all; the role stays, since other databases of the cluster may use it."""
    op.execute("DROP FUNCTION find_node(bytea, text)")
    op.execute("DROP TABLE node_certificates, nodes, called_ae_titles")
