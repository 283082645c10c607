"""The catalog's tables, as the migrations make them (``migrations/versions``)."""

from sqlalchemy import (
    BigInteger,
    Column,
    Date,
    DateTime,
    Identity,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    Time,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

metadata = MetaData()

patients = Table(
    "patients",
    metadata,
    Column("tenant_id", Text, primary_key=True),
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("patient_id", Text),
    Column("issuer", Text),
    Column("name", Text),
    Column("birth_date", Date),
    Column("sex", Text),
)

studies = Table(
    "studies",
    metadata,
    Column("tenant_id", Text, primary_key=True),
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("study_uid", Text),
    Column("patient_key", BigInteger),
    Column("patient_id", Text),
    Column("patient_name", Text),
    Column("patient_birth_date", Date),
    Column("patient_sex", Text),
    Column("study_date", Date),
    Column("study_time", Time),
    Column("accession_number", Text),
    Column("study_id", Text),
    Column("description", Text),
    Column("referring_physician", Text),
    Column("modalities", ARRAY(Text)),
    Column("series_count", Integer),
    Column("instance_count", Integer),
    Column("attributes", JSONB),
    Column("received_at", DateTime(timezone=True)),
    Column("updated_at", DateTime(timezone=True)),
)

series = Table(
    "series",
    metadata,
    Column("tenant_id", Text, primary_key=True),
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("study_key", BigInteger),
    Column("series_uid", Text),
    Column("modality", Text),
    Column("series_number", Integer),
    Column("description", Text),
    Column("instance_count", Integer),
    Column("attributes", JSONB),
    Column("revision", BigInteger),
    Column("document_revision", BigInteger),
    Column("received_at", DateTime(timezone=True)),
    Column("updated_at", DateTime(timezone=True)),
)

packs = Table(
    "packs",
    metadata,
    Column("tenant_id", Text, primary_key=True),
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("key", Text),
    Column("size", BigInteger),
    Column("index_offset", BigInteger),
    Column("index_length", Integer),
    Column("stored", DateTime(timezone=True)),
    Column("rule", Text),
)

instances = Table(
    "instances",
    metadata,
    Column("tenant_id", Text, primary_key=True),
    Column("sop_uid", Text, primary_key=True),
    Column("series_key", BigInteger),
    Column("pack_key", BigInteger),
    Column("byte_offset", BigInteger),
    Column("byte_length", BigInteger),
    Column("instance_number", Integer),
    Column("frame_count", Integer),
    Column("sop_class_uid", Text),
    Column("transfer_syntax", Text),
    Column("sha256", LargeBinary),
    Column("warnings", ARRAY(Text)),
)

instance_versions = Table(
    "instance_versions",
    metadata,
    Column("tenant_id", Text, primary_key=True),
    Column("sop_uid", Text, primary_key=True),
    Column("sha256", LargeBinary, primary_key=True),
    Column("study_uid", Text),
    Column("series_uid", Text),
    Column("pack_key", BigInteger),
    Column("byte_offset", BigInteger),
    Column("byte_length", BigInteger),
)
