"""Tenants, identity, the catalog, the audit chain and the outbox.

Every tenant table has ``tenant_id`` first in its keys, row-level security enabled and forced, and a policy on the
setting ``lightbox.tenant``. Services log in as members of the group roles below; none of them owns anything.
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

SERVICES = ("identity", "ingest_gateway", "indexing", "dicomweb", "portal", "audit")

TENANT_TABLES = (
    "users",
    "clients",
    "sessions",
    "login_attempts",
    "packs",
    "patients",
    "studies",
    "series",
    "instances",
    "instance_versions",
    "audit_records",
    "outbox",
)

SCHEMA = """
CREATE EXTENSION IF NOT EXISTS pg_trgm;
CREATE EXTENSION IF NOT EXISTS btree_gin;

-- identity ---------------------------------------------------------------------------------------------------------

CREATE TABLE tenants (
    id          text PRIMARY KEY CHECK (id ~ '^[a-z][a-z0-9-]{0,30}[a-z0-9]$'),
    name        text NOT NULL,
    state       text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'suspended')),
    created_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE users (
    tenant_id     text NOT NULL REFERENCES tenants (id),
    name          text NOT NULL,
    display_name  text NOT NULL,
    password_hash text NOT NULL,
    roles         text[] NOT NULL,
    active        boolean NOT NULL DEFAULT true,
    created_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, name)
);

CREATE TABLE clients (
    tenant_id   text NOT NULL REFERENCES tenants (id),
    name        text NOT NULL,
    secret_hash bytea NOT NULL,
    scopes      text[] NOT NULL,
    active      boolean NOT NULL DEFAULT true,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, name)
);

CREATE TABLE sessions (
    tenant_id  text NOT NULL,
    id_hash    bytea NOT NULL,
    user_name  text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    seen_at    timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id_hash),
    FOREIGN KEY (tenant_id, user_name) REFERENCES users (tenant_id, name) ON DELETE CASCADE
);

CREATE TABLE login_attempts (
    tenant_id  text NOT NULL,
    subject    text NOT NULL,
    failures   integer NOT NULL,
    since      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, subject)
);

CREATE TABLE signing_keys (
    id          text PRIMARY KEY,
    public_jwk  jsonb NOT NULL,
    sealed_key  bytea NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    signs_from  timestamptz NOT NULL,
    retires_at  timestamptz
);

-- catalog ----------------------------------------------------------------------------------------------------------

CREATE TABLE patients (
    tenant_id  text NOT NULL,
    id         bigint GENERATED ALWAYS AS IDENTITY,
    patient_id text NOT NULL,
    issuer     text NOT NULL DEFAULT '',
    name       text NOT NULL DEFAULT '',
    birth_date date,
    sex        text NOT NULL DEFAULT '',
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, patient_id, issuer)
);

CREATE TABLE studies (
    tenant_id           text NOT NULL,
    id                  bigint GENERATED ALWAYS AS IDENTITY,
    study_uid           text NOT NULL,
    patient_key         bigint NOT NULL,
    patient_id          text NOT NULL DEFAULT '',
    patient_name        text NOT NULL DEFAULT '',
    patient_birth_date  date,
    patient_sex         text NOT NULL DEFAULT '',
    study_date          date,
    study_time          time,
    accession_number    text NOT NULL DEFAULT '',
    study_id            text NOT NULL DEFAULT '',
    description         text NOT NULL DEFAULT '',
    referring_physician text NOT NULL DEFAULT '',
    modalities          text[] NOT NULL DEFAULT '{}',
    series_count        integer NOT NULL DEFAULT 0,
    instance_count      integer NOT NULL DEFAULT 0,
    attributes          jsonb NOT NULL,
    received_at         timestamptz NOT NULL,
    updated_at          timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, study_uid),
    FOREIGN KEY (tenant_id, patient_key) REFERENCES patients (tenant_id, id)
);
CREATE INDEX studies_by_date ON studies (tenant_id, study_date DESC NULLS LAST, id DESC);
CREATE INDEX studies_by_arrival ON studies (tenant_id, received_at DESC, id DESC);
CREATE INDEX studies_by_patient ON studies (tenant_id, patient_id);
CREATE INDEX studies_by_accession ON studies (tenant_id, accession_number) WHERE accession_number <> '';
CREATE INDEX studies_by_name ON studies USING gin (tenant_id, patient_name gin_trgm_ops);
CREATE INDEX studies_by_modality ON studies USING gin (tenant_id, modalities);

CREATE TABLE series (
    tenant_id         text NOT NULL,
    id                bigint GENERATED ALWAYS AS IDENTITY,
    study_key         bigint NOT NULL,
    series_uid        text NOT NULL,
    modality          text NOT NULL DEFAULT '',
    series_number     integer,
    description       text NOT NULL DEFAULT '',
    instance_count    integer NOT NULL DEFAULT 0,
    attributes        jsonb NOT NULL,
    revision          bigint NOT NULL DEFAULT 1,
    document_revision bigint NOT NULL DEFAULT 0,
    received_at       timestamptz NOT NULL,
    updated_at        timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, study_key, series_uid),
    FOREIGN KEY (tenant_id, study_key) REFERENCES studies (tenant_id, id)
);
CREATE INDEX series_by_uid ON series (tenant_id, series_uid);

CREATE TABLE packs (
    tenant_id    text NOT NULL,
    id           bigint GENERATED ALWAYS AS IDENTITY,
    key          text NOT NULL,
    size         bigint NOT NULL,
    index_offset bigint NOT NULL,
    index_length integer NOT NULL,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, key)
);

CREATE TABLE instances (
    tenant_id       text NOT NULL,
    sop_uid         text NOT NULL,
    series_key      bigint NOT NULL,
    pack_key        bigint NOT NULL,
    byte_offset     bigint NOT NULL,
    byte_length     bigint NOT NULL,
    instance_number integer,
    frame_count     integer NOT NULL DEFAULT 0,
    sop_class_uid   text NOT NULL,
    transfer_syntax text NOT NULL,
    sha256          bytea NOT NULL,
    PRIMARY KEY (tenant_id, sop_uid),
    FOREIGN KEY (tenant_id, series_key) REFERENCES series (tenant_id, id),
    FOREIGN KEY (tenant_id, pack_key) REFERENCES packs (tenant_id, id)
);
CREATE INDEX instances_by_series ON instances (tenant_id, series_key, instance_number);

CREATE TABLE instance_versions (
    tenant_id   text NOT NULL,
    sop_uid     text NOT NULL,
    sha256      bytea NOT NULL,
    study_uid   text NOT NULL,
    series_uid  text NOT NULL,
    pack_key    bigint NOT NULL,
    byte_offset bigint NOT NULL,
    byte_length bigint NOT NULL,
    PRIMARY KEY (tenant_id, sop_uid, sha256),
    FOREIGN KEY (tenant_id, pack_key) REFERENCES packs (tenant_id, id)
);

-- audit ------------------------------------------------------------------------------------------------------------

CREATE TABLE audit_records (
    tenant_id text NOT NULL,
    sequence  bigint NOT NULL,
    event_id  uuid NOT NULL,
    time      timestamptz NOT NULL,
    record    jsonb NOT NULL,
    previous  bytea NOT NULL,
    hash      bytea NOT NULL,
    PRIMARY KEY (tenant_id, sequence),
    UNIQUE (tenant_id, event_id)
);
CREATE INDEX audit_by_study ON audit_records (tenant_id, (record ->> 'study_uid'), sequence);

-- outbox -----------------------------------------------------------------------------------------------------------

CREATE TABLE outbox (
    tenant_id text NOT NULL,
    id        bigint GENERATED ALWAYS AS IDENTITY,
    producer  name NOT NULL,
    topic     text NOT NULL,
    key       bytea NOT NULL,
    event     bytea NOT NULL,
    PRIMARY KEY (tenant_id, id)
);
CREATE INDEX outbox_by_producer ON outbox (producer, id);
"""

SEARCH = """
-- Row-level security keeps operators that are not leakproof (ILIKE, &&) off the indexes. These functions run as a role
-- whose policy is plain, and name the tenant themselves.
CREATE POLICY search ON studies FOR SELECT TO lightbox_search USING (true);
GRANT SELECT ON studies TO lightbox_search;

CREATE FUNCTION studies_named(pattern text) RETURNS SETOF bigint
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp
    AS $$ SELECT id FROM studies
          WHERE tenant_id = current_setting('lightbox.tenant', true) AND patient_name ILIKE pattern $$;

CREATE FUNCTION studies_with_modality(wanted text[]) RETURNS SETOF bigint
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp
    AS $$ SELECT id FROM studies
          WHERE tenant_id = current_setting('lightbox.tenant', true) AND modalities && wanted $$;

ALTER FUNCTION studies_named(text) OWNER TO lightbox_search;
ALTER FUNCTION studies_with_modality(text[]) OWNER TO lightbox_search;
REVOKE ALL ON FUNCTION studies_named(text), studies_with_modality(text[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION studies_named(text), studies_with_modality(text[])
    TO lightbox_dicomweb, lightbox_portal;
"""

GRANTS = """
GRANT SELECT, INSERT, UPDATE ON tenants TO lightbox_identity;
GRANT SELECT, INSERT, UPDATE, DELETE ON users, clients, sessions, login_attempts, signing_keys TO lightbox_identity;
GRANT SELECT, INSERT, UPDATE, DELETE ON patients, studies, series, packs, instances, instance_versions
    TO lightbox_indexing;
GRANT SELECT ON instances, series, studies TO lightbox_ingest_gateway;
GRANT SELECT ON patients, studies, series, packs, instances, instance_versions TO lightbox_dicomweb, lightbox_portal;
GRANT SELECT, INSERT ON audit_records TO lightbox_audit;
GRANT SELECT, INSERT, DELETE ON outbox TO lightbox_identity, lightbox_indexing;
CREATE POLICY relay ON outbox FOR ALL USING (producer = current_user)
    WITH CHECK (producer = current_user AND tenant_id = current_setting('lightbox.tenant', true));
"""


def upgrade() -> None:
    """Creates the roles, tables, policies and grants."""
    for role in (*(f"lightbox_{service}" for service in SERVICES), "lightbox_search"):
        op.execute(f"DO $$ BEGIN CREATE ROLE {role} NOLOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
    op.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    # Objects can only be handed to a role that may create them, and by somebody who belongs to it; without
    # INHERIT the policies of that role do not become the owner's.
    op.execute("GRANT CREATE ON SCHEMA public TO lightbox_search")
    op.execute("GRANT lightbox_search TO current_user WITH INHERIT FALSE, SET TRUE")
    _run(SCHEMA)
    for table in TENANT_TABLES:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY tenant ON {table} USING (tenant_id = current_setting('lightbox.tenant', true)) "
            "WITH CHECK (tenant_id = current_setting('lightbox.tenant', true))"
        )
    _run(SEARCH)
    op.execute("REVOKE CREATE ON SCHEMA public FROM lightbox_search")
    _run(GRANTS)


def downgrade() -> None:
    """Removes everything again; the roles stay, since other databases of the cluster may use them."""
    op.execute("DROP FUNCTION studies_named(text), studies_with_modality(text[])")
    for table in (*reversed(TENANT_TABLES), "signing_keys", "tenants"):
        op.execute(f"DROP TABLE {table} CASCADE")


def _run(script: str) -> None:
    """Runs the statements one by one, since the driver takes a single one at a time."""
    for statement in _statements(script):
        op.execute(statement)


def _statements(script: str) -> list[str]:
    """Splits at semicolons that end a line; the bodies of the functions above hold none."""
    lines = (line for line in script.splitlines() if not line.lstrip().startswith("--"))
    return [part for part in (p.strip() for p in "\n".join(lines).split(";\n")) if part]
