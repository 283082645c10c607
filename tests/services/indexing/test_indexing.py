"""The catalog on real servers: what is stored is found, once, whatever the order and repetition of events."""

import gzip
import itertools
from typing import Any

import orjson
import pytest
from sqlalchemy import text

from libs.events import Envelope, InstancesStored, InvalidEvent
from libs.objects import ObjectNotFound
from libs.tenancy import tenant_transaction
from services.indexing.consumers import handle_events
from services.indexing.resources import Resources
from tests.services.indexing.conftest import Dump
from tests.services.indexing.packing import EPOCH, Pack, pack_of, store_pack


async def test_a_stored_pack_is_in_the_catalog(resources: Resources, tenant: str, dump: Dump) -> None:
    """The user finds the study with the values that the scanner wrote."""
    pack = pack_of("1.2.3", "1.2.3.1", ["1.2.3.1.1", "1.2.3.1.2"], ReferringPhysicianName="Ref^Doc")
    await handle_events(resources, [await store_pack(resources.objects, tenant, pack)])
    found = await dump(tenant)
    (study,) = found["studies"]
    assert study["patient_name"] == "Doe^Jane"
    assert study["referring_physician"] == "Ref^Doc"
    assert (str(study["study_date"]), str(study["study_time"])) == ("2025-03-04", "10:11:12.500000")
    assert (study["series_count"], study["instance_count"], study["modalities"]) == (1, 2, ["CT"])
    assert (study["received_at"], study["updated_at"]) == (EPOCH, EPOCH)
    assert orjson.loads(study["attributes"])["00100010"] == {"vr": "PN", "Value": [{"Alphabetic": "Doe^Jane"}]}
    assert "00080060" not in orjson.loads(study["attributes"])
    (series,) = found["series"]
    assert (series["modality"], series["series_number"], series["instance_count"]) == ("CT", 1, 2)
    assert series["documented"]
    assert [i["instance_number"] for i in found["instances"]] == [1, 2]
    assert {i["frame_count"] for i in found["instances"]} == {1}
    (patient,) = found["patients"]
    assert (patient["patient_id"], patient["name"], patient["sex"]) == ("P1", "Doe^Jane", "F")


async def test_events_again_change_nothing(resources: Resources, tenant: str, dump: Dump) -> None:
    """After a crash Kafka delivers again: no doubled image, no new revision, no second event."""
    events = [
        await store_pack(resources.objects, tenant, pack_of("1.2", "1.2.1", ["1.2.1.1"])),
        await store_pack(resources.objects, tenant, pack_of("1.2", "1.2.1", ["1.2.1.2"], 1)),
    ]
    await handle_events(resources, events)
    before, internal = await dump(tenant), await _internals(resources, tenant)
    await handle_events(resources, events)
    await handle_events(resources, [*reversed(events), *events])
    assert await dump(tenant) == before
    assert await _internals(resources, tenant) == internal


# A role sees all events that it has to send, whoever's they are.
_OUTBOX = "SELECT event, key FROM outbox WHERE tenant_id = current_setting('lightbox.tenant') ORDER BY id"


async def _internals(resources: Resources, tenant: str) -> list[Any]:
    queries = (
        "SELECT series_uid, revision, document_revision, id, xmin::text FROM series ORDER BY id",
        "SELECT study_uid, id, xmin::text FROM studies ORDER BY id",
        "SELECT sop_uid, xmin::text FROM instances ORDER BY sop_uid",
        "SELECT id, topic FROM outbox WHERE tenant_id = current_setting('lightbox.tenant') ORDER BY id",
    )
    async with tenant_transaction(resources.engine, tenant) as connection:
        return [[tuple(row) for row in await connection.execute(text(query))] for query in queries]


PACKS = (
    pack_of("1.2", "1.2.1", ["1.2.1.3", "1.2.1.4"], 3, StudyDescription="third", PatientName="C"),
    pack_of("1.2", "1.2.1", ["1.2.1.1", "1.2.1.2"], 1, StudyDescription="first", PatientName="A"),
    pack_of("1.2", "1.2.2", ["1.2.2.1"], 2, Modality="SR", PatientName="B"),
    # the same bytes once more, in another pack; then the same UIDs with other bytes
    pack_of("1.2", "1.2.1", ["1.2.1.1"], 4, StudyDescription="first", PatientName="A"),
    pack_of("1.2", "1.2.1", ["1.2.1.1", "1.2.1.3"], 0, StudyDescription="zeroth", PatientName="Z"),
    # a UID in two studies
    pack_of("1.9", "1.9.1", ["1.2.1.2"], 5, PatientID="P2"),
)


async def test_the_order_of_events_does_not_matter(
    resources: Resources, tenant_pair: tuple[str, str], dump: Dump
) -> None:
    """A rebuilt catalog must be the one that was lost, so nothing may depend on who came first."""
    tenant, other = tenant_pair
    events = [await store_pack(resources.objects, tenant, pack) for pack in PACKS]
    expected = None
    for count, order in enumerate(itertools.permutations(range(len(PACKS)))):
        if count % 97:
            continue
        await _empty(resources, tenant)
        for position in order:
            await handle_events(resources, [events[position]])
        found = await dump(tenant)
        expected = expected or found
        assert found == expected, order
    events = [await store_pack(resources.objects, other, pack) for pack in PACKS]
    await handle_events(resources, [*events, *reversed(events)])
    assert await dump(other) == expected
    assert expected is not None
    assert [s["study_uid"] for s in expected["studies"]] == ["1.2"]
    assert expected["studies"][0]["description"] == "zeroth"
    assert expected["studies"][0]["modalities"] == ["CT", "SR"]
    assert len(expected["instances"]) == 5
    assert [v["sop_uid"] for v in expected["versions"]] == ["1.2.1.1", "1.2.1.2", "1.2.1.3"]
    assert [p["name"] for p in expected["patients"]] == ["Z"]


async def _empty(resources: Resources, tenant: str) -> None:
    async with tenant_transaction(resources.engine, tenant) as connection:
        for table in ("instance_versions", "instances", "series", "studies", "patients", "packs"):
            await connection.execute(text(f"DELETE FROM {table}"))


async def test_other_bytes_never_take_the_place_of_the_first(resources: Resources, tenant: str, dump: Dump) -> None:
    """A radiologist's images must not be replaced by whoever sends the same UID later."""
    first = await store_pack(resources.objects, tenant, pack_of("1.2", "1.2.1", ["1.2.1.1"]))
    await handle_events(resources, [first])
    before = await dump(tenant)
    later = pack_of("1.2", "1.2.1", ["1.2.1.1"], 9, PatientName="Other^Person")
    await handle_events(resources, [await store_pack(resources.objects, tenant, later)])
    after = await dump(tenant)
    assert after["instances"] == before["instances"]
    assert after["studies"] == before["studies"]
    assert [v["sop_uid"] for v in after["versions"]] == ["1.2.1.1"]


async def test_studies_without_patient_id_are_not_one_person(resources: Resources, tenant: str, dump: Dump) -> None:
    """Two unknown patients must not share a history."""
    for number in (1, 2):
        pack = pack_of(f"1.{number}", f"1.{number}.1", [f"1.{number}.1.1"], PatientID=None, PatientName=f"N{number}")
        await handle_events(resources, [await store_pack(resources.objects, tenant, pack)])
    found = await dump(tenant)
    assert [p["name"] for p in found["patients"]] == ["N1", "N2"]
    assert [s["patient_id"] for s in found["studies"]] == ["", ""]


async def test_one_patient_has_one_row(resources: Resources, tenant: str, dump: Dump) -> None:
    """Priors are found by the patient."""
    for number in (1, 2):
        pack = pack_of(f"1.{number}", f"1.{number}.1", [f"1.{number}.1.1"], number, PatientName=f"N{number}")
        await handle_events(resources, [await store_pack(resources.objects, tenant, pack)])
    assert [p["name"] for p in (await dump(tenant))["patients"]] == ["N1"]


async def test_the_document_has_all_instances_and_replaces_the_older(resources: Resources, tenant: str) -> None:
    """The viewer opens a series from this document; an instance missing there is not shown."""
    for minute, uid in enumerate(["1.2.1.2", "1.2.1.1"]):
        pack = pack_of("1.2", "1.2.1", [uid], minute)
        await handle_events(resources, [await store_pack(resources.objects, tenant, pack)])
    async with tenant_transaction(resources.engine, tenant) as connection:
        row = (await connection.execute(text("SELECT revision, document_revision FROM series"))).one()
    assert row.revision == row.document_revision == 2
    content = await resources.objects.get(tenant, "metadata/1.2/1.2.1/2.json.gz")
    instances = orjson.loads(gzip.decompress(content))
    assert [i["00080018"]["Value"][0] for i in instances] == ["1.2.1.1", "1.2.1.2"]
    assert instances[0]["7FE00010"]["BulkDataURI"].startswith("/dicom-web/studies/1.2/series/1.2.1/instances/1.2.1.1/")
    with pytest.raises(ObjectNotFound):
        await resources.objects.get(tenant, "metadata/1.2/1.2.1/1.json.gz")


async def test_a_document_that_a_crash_prevented_is_made_up_for(resources: Resources, tenant: str) -> None:
    """A crash between the commit and the document: the event comes again and must finish the work."""
    event = await store_pack(resources.objects, tenant, pack_of("1.2", "1.2.1", ["1.2.1.1"]))
    await handle_events(resources, [event])
    async with tenant_transaction(resources.engine, tenant) as connection:
        await connection.execute(text("UPDATE series SET document_revision = 0"))
    await resources.objects.delete(tenant, "metadata/1.2/1.2.1/1.json.gz")
    await handle_events(resources, [event])
    assert await resources.objects.get(tenant, "metadata/1.2/1.2.1/1.json.gz")


async def test_what_changed_is_told_with_the_change(resources: Resources, tenant: str) -> None:
    """The worklist shows a new study without a reload."""
    one = await store_pack(resources.objects, tenant, pack_of("1.2", "1.2.1", ["1.2.1.1"]))
    two = await store_pack(resources.objects, tenant, pack_of("1.2", "1.2.2", ["1.2.2.1"], 1))
    for event in (one, two, one):
        await handle_events(resources, [event])
    async with tenant_transaction(resources.engine, tenant) as connection:
        rows = (await connection.execute(text(_OUTBOX))).all()
    told = [orjson.loads(row.event)["data"] for row in rows]
    assert [(t["change"], t["series_count"], t["instance_count"]) for t in told] == [
        ("created", 1, 1),
        ("updated", 2, 2),
    ]
    assert {row.key for row in rows} == {f"{tenant}/1.2".encode()}


def altered(event: Envelope[InstancesStored], **changes: Any) -> Envelope[InstancesStored]:
    """The event with other data."""
    return event.model_copy(update={"data": event.data.model_copy(update=changes)})


async def test_events_that_lie_are_refused_and_named(resources: Resources, tenant_pair: tuple[str, str]) -> None:
    """A damaged pack must not stop those after it, nor be taken for something it is not."""
    tenant, other = tenant_pair
    event = await store_pack(resources.objects, tenant, pack_of("1.2", "1.2.1", ["1.2.1.1"]))
    second = await store_pack(resources.objects, tenant, pack_of("1.3", "1.3.1", ["1.3.1.1"]))
    await resources.objects.put(tenant, second.data.pack_key, b"damaged" * 1000)
    copy = f"{event.data.pack_key[:-5]}0.zip"
    await resources.objects.put(tenant, copy, await resources.objects.get(tenant, event.data.pack_key))
    lies = [
        second,
        altered(event, pack_key=event.data.pack_key.replace(".zip", "x.zip")),
        altered(event, pack_key=copy),
        altered(event, index_offset=event.data.pack_size * 2),
        event.model_copy(update={"tenant": other}),
        event.model_copy(update={"tenant": "nobody"}),
        event.model_copy(update={"tenant": "system"}),
        altered(event, study_uid="1.5"),
    ]
    for number, lie in enumerate(lies):
        with pytest.raises(InvalidEvent) as refused:
            await handle_events(resources, [lie])
        assert refused.value.events == {lie.id}, number


async def test_odd_values_are_kept_in_bounds(resources: Resources, tenant: str, dump: Dump) -> None:
    """Old devices write odd things; the study must be found all the same."""
    pack = Pack(
        "1.2",
        "1.2.1",
        {"1.2.1.1": {}},
        attributes={
            "PatientName": "山田^太郎=山田^太郎",
            "StudyDate": "",
            "StudyTime": "",
            "SeriesNumber": None,
            "InstanceNumber": None,
            "PatientBirthDate": None,
            "SpecificCharacterSet": "ISO_IR 192",
            "StudyDescription": "x" * 64,
        },
    )
    await handle_events(resources, [await store_pack(resources.objects, tenant, pack)])
    found = await dump(tenant)
    (study,) = found["studies"]
    assert study["patient_name"] == "山田^太郎=山田^太郎"
    assert (study["study_date"], study["study_time"], study["patient_birth_date"]) == (None, None, None)
    assert found["instances"][0]["instance_number"] is None


async def test_two_tenants_with_the_same_uids(resources: Resources, tenant_pair: tuple[str, str], dump: Dump) -> None:
    """Clinics may hold identical UIDs; neither sees or disturbs the other."""
    one, other = tenant_pair
    first = await store_pack(resources.objects, one, pack_of("1.2", "1.2.1", ["1.2.1.1"], PatientName="One"))
    second = await store_pack(resources.objects, other, pack_of("1.2", "1.2.1", ["1.2.1.1"], PatientName="Other"))
    await handle_events(resources, [first, second])
    assert [s["patient_name"] for s in (await dump(one))["studies"]] == ["One"]
    assert [s["patient_name"] for s in (await dump(other))["studies"]] == ["Other"]
    assert (await dump(one))["versions"] == (await dump(other))["versions"] == []


async def test_a_few_images_are_seen_before_somebody_elses_archive(
    resources: Resources, tenant_pair: tuple[str, str], dump: Dump
) -> None:
    """A radiologist who waits for one study does not wait for what another clinic sends meanwhile."""
    flood, modest = sorted(tenant_pair)
    archive = [
        await store_pack(resources.objects, flood, pack_of("1.2", f"1.2.{n}", [f"1.2.{n}.{i}" for i in range(1, 5)]))
        for n in range(1, 4)
    ]
    await resources.objects.delete(flood, archive[0].data.pack_key)  # so it can be seen who was first
    study = await store_pack(resources.objects, modest, pack_of("1.3", "1.3.1", ["1.3.1.1"]))
    with pytest.raises(InvalidEvent):
        await handle_events(resources, [*archive, study])
    assert [one["study_uid"] for one in (await dump(modest))["studies"]] == ["1.3"]
    assert (await dump(flood))["studies"] == []
