"""Other bytes under a known UID: which are shown, and that none is lost, whatever order the packs become known in."""

import itertools
from dataclasses import replace
from io import StringIO
from random import Random
from typing import Any

from sqlalchemy import text

from libs.events import Envelope, InstancesStored
from libs.packs import Rule
from libs.tenancy import tenant_transaction
from services.indexing.consumers import handle_events
from services.indexing.reindex import Progress, reindex_tenant
from services.indexing.resources import Resources
from tests.services.indexing.conftest import Dump
from tests.services.indexing.packing import Pack, pack_of, store_pack


def copy_of(uid: str, name: str, minute: int, rule: Rule = "keep-first", series: str = "1.2.1") -> Pack:
    """A pack of one instance whose bytes differ by the name of the patient."""
    return replace(pack_of("1.2", series, [uid], minute, PatientName=name, SeriesDescription=name), rule=rule)


def latest(uid: str, name: str, minute: int, series: str = "1.2.1") -> Pack:
    """The same, to be shown in place of what came earlier."""
    return copy_of(uid, name, minute, "keep-latest", series)


async def store(resources: Resources, tenant: str, packs: list[Pack]) -> list[Envelope[InstancesStored]]:
    """Puts the packs into the bucket; nothing is indexed yet."""
    return [await store_pack(resources.objects, tenant, pack) for pack in packs]


async def empty(resources: Resources, tenant: str) -> None:
    """Forgets the catalog."""
    async with tenant_transaction(resources.engine, tenant) as connection:
        for table in ("instance_versions", "instances", "series", "studies", "patients", "packs"):
            await connection.execute(text(f"DELETE FROM {table}"))


def shown(catalog: dict[str, list[dict[str, Any]]]) -> tuple[str, list[str]]:
    """The name of the patient of the only study, and the SHA-256 of what is kept beside."""
    return catalog["studies"][0]["patient_name"], [version["sha256"] for version in catalog["versions"]]


async def test_the_latest_is_shown_and_the_earlier_one_stays(resources: Resources, tenant: str, dump: Dump) -> None:
    """A clinic that corrects images at the scanner sees the correction, and can still get at what was there."""
    first, second = await store(resources, tenant, [copy_of("1.2.1.1", "A", 0), latest("1.2.1.1", "B", 1)])
    await handle_events(resources, [first])
    before = (await dump(tenant))["instances"]
    await handle_events(resources, [second])
    after = await dump(tenant)
    assert shown(after) == ("B", [before[0]["sha256"]])
    assert after["series"][0]["description"] == "B"
    assert after["series"][0]["instance_count"] == 1
    assert after["series"][0]["documented"], "the viewer's document is of the instance that is shown"


async def test_the_first_bytes_again_do_not_come_to_the_front(resources: Resources, tenant: str, dump: Dump) -> None:
    """A scanner that sends everything once more must not undo a correction."""
    packs = [latest("1.2.1.1", "A", 0), latest("1.2.1.1", "B", 1)]
    again = replace(
        pack_of("1.2", "1.2.1", ["1.2.1.1", "1.2.1.2"], 2, PatientName="A", SeriesDescription="A"), rule="keep-latest"
    )
    await handle_events(resources, await store(resources, tenant, [*packs, again]))
    found = await dump(tenant)
    names = {i["sop_uid"]: i["key"] for i in found["instances"]}
    assert len(names) == 2
    assert names["1.2.1.1"] != names["1.2.1.2"], "the repeated bytes of A do not replace B"


async def test_a_newcomer_under_keep_first_replaces_nothing(resources: Resources, tenant: str, dump: Dump) -> None:
    """After the policy was changed back, what is shown stays until somebody changes it."""
    packs = [copy_of("1.2.1.1", "A", 0), latest("1.2.1.1", "B", 1), copy_of("1.2.1.1", "C", 2)]
    await handle_events(resources, await store(resources, tenant, packs))
    name, versions = shown(await dump(tenant))
    assert (name, len(versions)) == ("B", 2)


MIXED = [
    copy_of("1.2.1.1", "A", 0),
    latest("1.2.1.1", "B", 2),
    latest("1.2.1.1", "C", 6),
    # C's bytes were there before, under the other rule and with a second instance: then B is the latest
    pack_of("1.2", "1.2.1", ["1.2.1.1", "1.2.1.3"], 1, PatientName="C", SeriesDescription="C"),
    # the same UID moves to another series, and an instance that stays behind
    latest("1.2.1.2", "D", 4, series="1.2.9"),
    copy_of("1.2.1.2", "A", 3),
]


async def test_no_order_of_events_gives_another_catalog(
    resources: Resources, tenant_pair: tuple[str, str], dump: Dump
) -> None:
    """Which image is shown must not depend on Kafka; a rebuilt catalog must be the one that was lost."""
    tenant, other = tenant_pair
    events = await store(resources, tenant, MIXED)
    await handle_events(resources, events)
    expected = await dump(tenant)
    sample = Random(4).sample(list(itertools.permutations(range(len(MIXED)))), 40)
    for order in sample:
        await empty(resources, tenant)
        cut = order[0] % len(order)
        await handle_events(resources, [events[position] for position in order[:cut]])
        for position in order[cut:]:
            await handle_events(resources, [events[position]])
        await handle_events(resources, [events[order[-1]], events[order[0]]])
        assert await dump(tenant) == expected, order
    await store(resources, other, MIXED)
    await reindex_tenant(resources, other, Progress(StringIO()))
    assert await dump(other) == expected


async def test_what_an_instance_was_odd_about_is_in_the_catalog(resources: Resources, tenant: str, dump: Dump) -> None:
    """What was stored with a warning can be listed, so that somebody looks at it."""
    odd = pack_of("1.2", "1.2.1", ["1.2.1.1"], Rows=3)
    await handle_events(resources, await store(resources, tenant, [odd, pack_of("1.2", "1.2.1", ["1.2.1.2"])]))
    warnings = {i["sop_uid"]: i["warnings"] for i in (await dump(tenant))["instances"]}
    assert warnings["1.2.1.2"] == []
    assert warnings["1.2.1.1"], "fewer pixels than rows were recorded in the pack"


async def test_what_was_lost_and_is_sent_again_can_be_read_again(resources: Resources, tenant: str, dump: Dump) -> None:
    """After a loss in the object store the senders send again; the catalog must then name the packs that are there."""
    lost, kept = await store(
        resources, tenant, [pack_of("1.2", "1.2.1", ["1.2.1.1", "1.2.1.2"]), copy_of("1.2.1.2", "V", 1)]
    )
    await handle_events(resources, [lost, kept])
    await resources.objects.delete(tenant, lost.data.pack_key)
    (again,) = await store(resources, tenant, [pack_of("1.2", "1.2.1", ["1.2.1.1"], 5)])
    await handle_events(resources, [again])
    found = await dump(tenant)
    assert {i["sop_uid"]: i["key"] for i in found["instances"]}["1.2.1.1"] == again.data.pack_key
    (rest,) = await store(resources, tenant, [pack_of("1.2", "1.2.1", ["1.2.1.2"], 6)])
    await handle_events(resources, [rest])
    found = await dump(tenant)
    where = {i["sop_uid"]: i["key"] for i in found["instances"]} | {"version": found["versions"][0]["key"]}
    assert lost.data.pack_key not in where.values()
    assert len(found["versions"]) == 1, "the two contents of 1.2.1.2 are both kept"
    await handle_events(resources, [rest, again, kept])
    assert await dump(tenant) == found
