"""The catalog's queries on a real, migrated PostgreSQL."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pytest
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.catalog import queries
from libs.catalog.queries import Cursor, InstanceFilter, SeriesFilter, StudyFilter
from libs.catalog.rows import InvalidCursor, Order
from libs.catalog.tables import instances, packs, patients, series, studies
from libs.tenancy import create_engine, tenant_transaction
from tests.support.backing import Backing

START = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture
async def writer(backing: Backing) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(backing.database_url("indexing"), pool_size=1)
    yield engine
    await engine.dispose()


@pytest.fixture
async def reader(backing: Backing) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(backing.database_url("dicomweb"), pool_size=1)
    yield engine
    await engine.dispose()


async def add_studies(engine: AsyncEngine, tenant: str, rows: list[dict[str, Any]]) -> None:
    """Studies 1.1, 1.2 and so on, with two series of two instances each."""
    async with tenant_transaction(engine, tenant) as connection:
        patient = insert(patients).values(tenant_id=tenant, patient_id="P", issuer="", sex="").returning(patients.c.id)
        patient_key = await connection.scalar(patient)
        pack = {"key": "packs/x.zip", "size": 10, "index_offset": 1, "index_length": 2, "stored": START}
        pack_key = await connection.scalar(insert(packs).values(tenant_id=tenant, **pack).returning(packs.c.id))
        for n, row in enumerate(rows, 1):
            values = {
                "tenant_id": tenant,
                "study_uid": f"1.{n}",
                "patient_key": patient_key,
                "modalities": ["CT"],
                "attributes": {"00100010": {"vr": "PN"}},
                "received_at": START + timedelta(hours=n // 2),
                "updated_at": START,
                **row,
            }
            study_key = await connection.scalar(insert(studies).values(**values).returning(studies.c.id))
            for s in (2, 1):
                of_series = {
                    "tenant_id": tenant,
                    "study_key": study_key,
                    "series_uid": f"1.{n}.{s}",
                    "modality": "CT",
                    "series_number": s,
                    "instance_count": 2,
                    "attributes": {},
                    "received_at": START,
                    "updated_at": START,
                }
                series_key = await connection.scalar(insert(series).values(**of_series).returning(series.c.id))
                rows_of_series = [
                    {
                        "tenant_id": tenant,
                        "sop_uid": f"1.{n}.{s}.{i}",
                        "series_key": series_key,
                        "pack_key": pack_key,
                        "byte_offset": 100 * n + 10 * s + i,
                        "byte_length": 5,
                        "instance_number": 3 - i,
                        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2",
                        "transfer_syntax": "1.2.840.10008.1.2.1",
                        "sha256": bytes(32),
                    }
                    for i in (1, 2)
                ]
                await connection.execute(insert(instances), rows_of_series)


async def test_pages_neither_repeat_nor_skip(writer: AsyncEngine, reader: AsyncEngine, tenant: str) -> None:
    """Whoever scrolls to the end has seen every study once, those of one day and those without a date too."""
    days = [date(2024, 1, 1), date(2024, 1, 1), None, date(2024, 1, 2), None, date(2023, 5, 5), date(2024, 1, 1)]
    await add_studies(writer, tenant, [{"study_date": day} for day in days])
    orders: list[tuple[Order, str]] = [("study-date", "4721653"), ("arrival", "7654321")]
    for order, expected in orders:
        for size in (1, 2, 3, 7, 10):
            seen = ""
            after: Cursor | None = None
            async with tenant_transaction(reader, tenant) as connection:
                while page := await queries.search_studies(
                    connection, StudyFilter(), order=order, limit=size, after=after
                ):
                    seen += "".join(row.study_uid[-1] for row in page)
                    after = Cursor.decode(page[-1].cursor(order).encode(), order)
            assert seen == expected, (order, size)


FORGED = ("", "x", "bnVsbA", "W10", "WyJhcnJpdmFsIiwgMSwgMV0", "é", "A" * 5000, "WyJhcnJpdmFsIixudWxsLC0xXQ")


@pytest.mark.parametrize("forged", FORGED)
def test_a_forged_cursor_is_refused(forged: str) -> None:
    """A cursor comes back from a URL that anybody can write."""
    with pytest.raises(InvalidCursor):
        Cursor.decode(forged, "arrival")


def test_a_cursor_of_another_order_is_refused() -> None:
    """It would skip studies."""
    with pytest.raises(InvalidCursor):
        Cursor.decode(Cursor("study-date", date(2024, 1, 1), 5).encode(), "arrival")


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (StudyFilter(words=("meier",)), "1"),
        (StudyFilter(words=("EIER", "anna")), "1"),
        (StudyFilter(words=("meier", "bert")), ""),
        (StudyFilter(words=("acc-2",)), "2"),
        (StudyFilter(words=("thorax",)), "21"),
        (StudyFilter(words=("100%",)), "3"),
        (StudyFilter(words=("_",)), "3"),
        (StudyFilter(words=("*",)), ""),
        (StudyFilter(words=("\\",)), ""),
        (StudyFilter(words=("\0",)), ""),
        (StudyFilter(patient_name="*meier*"), "1"),
        (StudyFilter(patient_name="Meier^Anna^^"), "1"),
        (StudyFilter(patient_name="Müller*"), "2"),
        (StudyFilter(patient_name="müller^b?rt"), "2"),
        (StudyFilter(patient_name="王*"), "3"),
        (StudyFilter(patient_name="Wang^Xiaodong=王*"), "3"),
        (StudyFilter(patient_name="Xiaodong*"), ""),
        (StudyFilter(patient_name=".*"), ""),
        (StudyFilter(patient_name="M*^Anna"), "1"),
        (StudyFilter(patient_id="1"), "1"),
        (StudyFilter(patient_id="*1*"), "31"),
        (StudyFilter(modalities=("CT",)), "31"),
        (StudyFilter(modalities=("SR", "MR")), "32"),
        (StudyFilter(modalities=("XX",)), ""),
        (StudyFilter(study_date=(date(2024, 1, 2), None)), "32"),
        (StudyFilter(study_time=(None, time(9))), "1"),
        (StudyFilter(study_datetime=(datetime(2024, 1, 1, 9), datetime(2024, 1, 2, 10))), "2"),
        (StudyFilter(study_uids=("1.1", "1.3")), "31"),
        (StudyFilter(referring_physician="house*"), "2"),
        (StudyFilter(patient_sex="F", modalities=("CT",)), "1"),
    ],
)
async def test_filters(
    writer: AsyncEngine, reader: AsyncEngine, tenant: str, wanted: StudyFilter, expected: str
) -> None:
    """Each filter finds what it should and no more, and the count agrees with the list."""
    rows: list[dict[str, Any]] = [
        {
            "patient_name": "Meier^Anna",
            "patient_id": "1",
            "patient_sex": "F",
            "accession_number": "ACC-1",
            "description": "CT Thorax",
            "study_date": date(2024, 1, 1),
            "study_time": time(8),
            "modalities": ["CT"],
        },
        {
            "patient_name": "Müller^Bert",
            "patient_id": "2",
            "accession_number": "ACC-2",
            "description": "MR Thorax",
            "study_date": date(2024, 1, 2),
            "study_time": time(10),
            "modalities": ["MR"],
            "referring_physician": "House^Gregory",
        },
        {
            "patient_name": "Wang^XiaoDong=王^小东",
            "patient_id": "A1_",
            "description": "100% head",
            "study_date": date(2024, 1, 3),
            "study_time": time(12),
            "modalities": ["CT", "SR"],
        },
    ]
    await add_studies(writer, tenant, rows)
    async with tenant_transaction(reader, tenant) as connection:
        found = await queries.search_studies(connection, wanted)
        assert "".join(row.study_uid[-1] for row in found) == expected
        assert await queries.count_studies(connection, wanted) == len(expected)


async def test_levels(writer: AsyncEngine, reader: AsyncEngine, tenant: str) -> None:
    """Series come by number, instances by number, bytes in the order in which they lie."""
    await add_studies(writer, tenant, [{"patient_id": "A"}, {"patient_id": "B"}])
    async with tenant_transaction(reader, tenant) as connection:
        assert [s.series_uid for s in await queries.list_series(connection, "1.1")] == ["1.1.1", "1.1.2"]
        found = await queries.list_instances(connection, "1.1", "1.1.2")
        assert [i.sop_uid for i in found] == ["1.1.2.2", "1.1.2.1"]
        assert (await queries.list_instances(connection, "1.2", "1.1.2")) == []
        where = await queries.locate_instances(connection, "1.1")
        assert [i.sop_uid for i in where] == ["1.1.1.1", "1.1.1.2", "1.1.2.1", "1.1.2.2"]
        assert await queries.locate_instances(connection, "1.1", after=where[1]) == where[2:]
        assert await queries.locate_instances(connection, "1.1", "1.1.2", "1.1.2.1") == where[2:3]
        assert await queries.locate_instances(connection, "1.1", "1.1.1", "1.1.2.1") == []
        one = SeriesFilter(study=StudyFilter(patient_id="B"), series_number=1)
        assert [s.series_uid for _, s in await queries.search_series(connection, one)] == ["1.2.1"]
        assert await queries.count_series(connection, one) == 1
        wanted = InstanceFilter(series=one, instance_number=1)
        assert [i.sop_uid for _, _, i in await queries.search_instances(connection, wanted)] == ["1.2.1.2"]
        assert await queries.count_instances(connection, replace(wanted, instance_number=None)) == 2
        summary = await queries.summarise_instances(connection, "1.1")
        assert summary == (4, frozenset({"1.2.840.10008.1.2.1"}), "A")
        assert await queries.summarise_instances(connection, "9.9") == (0, frozenset(), "")
        assert await queries.find_study(connection, "9.9") is None
        assert await queries.find_series(connection, "1.2", "1.1.1") is None


async def test_tenants_do_not_see_each_other(
    writer: AsyncEngine, reader: AsyncEngine, tenant_pair: tuple[str, str]
) -> None:
    """The same UIDs, the same names, one connection: each finds its own, through the search functions too."""
    for tenant in tenant_pair:
        await add_studies(writer, tenant, [{"patient_name": "Same^Name", "description": tenant}])
    for tenant in (*tenant_pair, tenant_pair[0]):
        async with tenant_transaction(reader, tenant) as connection:
            for wanted in (StudyFilter(), StudyFilter(patient_name="*same*"), StudyFilter(modalities=("CT",))):
                assert [s.description for s in await queries.search_studies(connection, wanted)] == [tenant]
            assert len(await queries.locate_instances(connection, "1.1")) == 4


async def test_without_a_tenant_there_is_nothing(writer: AsyncEngine, reader: AsyncEngine, tenant: str) -> None:
    """A query that forgot its tenant finds no rows rather than all of them."""
    await add_studies(writer, tenant, [{"patient_name": "A^B"}])
    async with reader.begin() as connection:  # not tenant data: this is the point
        for wanted in (StudyFilter(), StudyFilter(patient_name="*a*"), StudyFilter(modalities=("CT",))):
            assert await queries.search_studies(connection, wanted) == []


async def test_counts_are_bounded(writer: AsyncEngine, reader: AsyncEngine, tenant: str) -> None:
    """A clinic with a million studies waits no longer for its list than one with ten."""
    await add_studies(writer, tenant, [{} for _ in range(5)])
    async with tenant_transaction(reader, tenant) as connection:
        assert await queries.count_studies(connection, StudyFilter(), cap=3) == 3
