"""Bringing packs into the catalog."""

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.crash import crash_point
from libs.events import STUDIES_CHANGED, StudiesChanged, add_to_outbox, envelope
from libs.objects import ObjectNotFound, ObjectsUnavailable
from libs.packs import PackedInstance, document_key, series_document
from libs.tenancy import tenant_transaction
from services.indexing import store, store_derived
from services.indexing.domain import (
    Copy,
    Decision,
    IndexedPack,
    PackPlace,
    SeriesEntry,
    StudyEntry,
    decide,
    describe_pack,
    describe_series,
    describe_study,
    packs_in_doubt,
    without_lost,
)
from services.indexing.errors import UnusablePack
from services.indexing.resources import Resources
from services.indexing.store_derived import Series, Source

_DOCUMENTS_AT_ONCE = 4
_log = structlog.get_logger(__name__)


async def read_pack(resources: Resources, tenant: str, place: PackPlace) -> IndexedPack:
    """What the catalog needs of a pack.

    Raises:
        UnusablePack: it can't be indexed, now or ever.
        ObjectsUnavailable: the object store is away.
    """
    return describe_pack(place, await resources.packs.read(tenant, place))


async def find_pack(resources: Resources, tenant: str, key: str) -> IndexedPack:
    """The same for a pack of which only the key is known.

    Raises:
        As ``read_pack``.
    """
    place, index = await resources.packs.find(tenant, key)
    return describe_pack(place, index)


async def index_packs(resources: Resources, tenant: str, packs: Sequence[IndexedPack]) -> int:
    """Brings packs into the tenant's catalog, in one transaction, and then renews the documents of their series.

    Doing it again, or in another order, gives the same catalog.

    Arguments:
        resources: what the service works with.
        tenant: whose packs they are.
        packs: the packs, in any order.

    Returns:
        How many instances were new or have moved.

    Raises:
        ObjectsUnavailable, SQLAlchemyError: a server is away. The transaction may have been committed; do it again.
    """
    packs = list({pack.place.key: pack for pack in packs}.values())
    crash_point("indexing.packs_read")
    async with tenant_transaction(resources.engine, tenant) as connection:
        await store.lock_tenant(connection)
        written = await _Indexing(resources, tenant, connection, packs).run()
        crash_point("indexing.written")
    crash_point("indexing.committed")
    resources.committed.set()
    await renew_documents(resources, tenant, {(pack.study_uid, pack.series_uid) for pack in packs})
    return written


class _Indexing:
    """One transaction's work."""

    def __init__(
        self, resources: Resources, tenant: str, connection: AsyncConnection, packs: Sequence[IndexedPack]
    ) -> None:
        self._resources = resources
        self._tenant = tenant
        self._connection = connection
        self._packs = {pack.place.key: pack for pack in packs}

    async def run(self) -> int:
        """Writes what is new and derives what follows from it; how many instances were written."""
        connection = self._connection
        copies = [copy for pack in self._packs.values() for copy in pack.copies]
        await store.write_packs(connection, self._packs.values())
        instances, versions = await store.find_copies(connection, {copy.sop_uid for copy in copies})
        lost = await self._lost(packs_in_doubt(copies, instances, versions))
        decision = decide(copies, *without_lost(instances, versions, lost))
        if not decision.instances and not decision.versions:
            return 0
        await self._complete(decision)
        touched = {copy.series for copy in decision.instances} | decision.changed
        studies = {study for study, _ in touched}
        created = await self._add_parents(decision.instances)
        await store.write_instances(connection, decision.instances)
        await store.write_versions(connection, decision.versions, decision.promoted)
        if decision.left:
            await store_derived.remove_empty(connection, decision.left)
        await store_derived.count_series(connection, decision.changed, changed=True)
        await store_derived.count_series(connection, touched - decision.changed, changed=False)
        changed = await self._describe(touched, decision.left)
        changed |= await store_derived.count_studies(connection, studies)
        changed |= {study for study, _ in decision.changed}
        await store_derived.settle_patients(connection, studies, stray=bool(decision.left) or self._moved)
        await self._announce(created, changed)
        return len(decision.instances)

    async def _lost(self, in_doubt: Mapping[str, set[tuple[str, bytes]]]) -> set[tuple[str, bytes]]:
        """What has come again since the pack that held it is not in the bucket any more."""
        lost: set[tuple[str, bytes]] = set()
        for key, contents in sorted(in_doubt.items()):
            try:
                await self._resources.objects.head(self._tenant, key)
            except ObjectNotFound:
                _log.error("a pack is lost; what it held came again in another one", tenant=self._tenant, pack=key)
                lost |= contents
        return lost

    async def _complete(self, decision: Decision) -> None:
        """Reads what the catalog does not say of versions that are to be shown, from the packs that hold them."""
        for key in {copy.pack for copy in decision.instances} - self._packs.keys():
            self._packs[key] = await find_pack(self._resources, self._tenant, key)
        whole = {(copy.pack, copy.sop_uid): copy for pack in self._packs.values() for copy in pack.copies}
        decision.instances = [whole[copy.pack, copy.sop_uid] for copy in decision.instances]

    _moved = False
    """Whether the patient of a study may be another one now."""

    async def _add_parents(self, instances: Sequence[Copy]) -> set[str]:
        """Adds the studies and series that instances need; returns the studies that are new."""
        studies: dict[str, StudyEntry] = {}
        series: dict[Series, SeriesEntry] = {}
        for copy in sorted(instances, key=lambda c: (c.rank, c.sop_uid)):
            pack = self._packs[copy.pack]
            studies.setdefault(copy.study_uid, pack.study)
            series.setdefault(copy.series, pack.series)
        created = await store.add_studies(self._connection, studies)
        await store.add_series(self._connection, series)
        return created

    async def _describe(self, touched: Collection[Series], left: Collection[Series]) -> set[str]:
        """Gives studies and series the columns of their first instance; returns the studies that were otherwise.

        An instance that is not in this batch was the first before, so nothing changes, unless one was taken away.
        """
        left_studies = {study for study, _ in left}
        series: dict[Series, SeriesEntry] = {}
        for source in await store_derived.series_sources(self._connection, touched):
            pack = self._packs.get(source.pack.key)
            if pack is not None and source.sop_uid == pack.first_uid:
                series[source.series] = pack.series
            elif pack is not None or source.series in left:
                series[source.series] = describe_series(await self._load(source))
        studies: dict[str, StudyEntry] = {}
        for source in await store_derived.study_sources(self._connection, {study for study, _ in touched}):
            study = source.series[0]
            pack = self._packs.get(source.pack.key)
            if pack is not None and source.sop_uid == pack.first_uid:
                studies[study] = pack.study
            elif pack is not None or study in left_studies:
                studies[study] = describe_study(await self._load(source))
        changed = await store.describe_series(self._connection, series)
        described = await store.describe_studies(self._connection, studies)
        self._moved = bool(described)
        return changed | described

    async def _load(self, source: Source) -> PackedInstance:
        index = await self._resources.packs.read(self._tenant, source.pack)
        return next(i for i in index.instances if i.sop_instance_uid == source.sop_uid)

    async def _announce(self, created: set[str], changed: set[str]) -> None:
        counts = await store_derived.study_counts(self._connection, created | changed)
        events = [
            envelope(
                STUDIES_CHANGED,
                self._tenant,
                StudiesChanged(
                    study_uid=study.study_uid,
                    change="created" if study.study_uid in created else "updated",
                    series_count=study.series_count,
                    instance_count=study.instance_count,
                ),
            )
            for study in counts
        ]
        if events:
            await add_to_outbox(self._connection, STUDIES_CHANGED, events)


async def renew_documents(resources: Resources, tenant: str, series: Collection[Series]) -> None:
    """Writes the metadata documents of those of the series that have changed since theirs was written.

    Raises:
        ObjectsUnavailable, SQLAlchemyError: a server is away; do it again.
    """
    async with tenant_transaction(resources.engine, tenant) as connection:
        stale = await store_derived.stale_series(connection, series)
    slots = asyncio.Semaphore(_DOCUMENTS_AT_ONCE)

    async def renew(key: int) -> None:
        async with slots:
            await renew_document(resources, tenant, key)

    results = await asyncio.gather(*(renew(key) for key in stale), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


async def renew_document(resources: Resources, tenant: str, key: int) -> None:
    """Writes the metadata document of one series and removes the one before it.

    A pack that can't be read any more leaves the series without a new document, which readers can do without.

    Raises:
        ObjectsUnavailable, SQLAlchemyError: a server is away; do it again.
    """
    async with tenant_transaction(resources.engine, tenant) as connection:
        sources = await store_derived.document_sources(connection, key)
    if sources is None:
        return
    instances: list[PackedInstance] = []
    for place, uids in sources.packs:
        try:
            index = await resources.packs.read(tenant, place)
        except UnusablePack as error:
            _log.error("no document: a pack can't be read", tenant=tenant, pack=place.key, reason=str(error))
            return
        instances.extend(instance for instance in index.instances if instance.sop_instance_uid in uids)
    content = await asyncio.to_thread(series_document, *sources.series, instances)
    await resources.objects.put(tenant, document_key(*sources.series, sources.revision), content)
    crash_point("indexing.document_stored")
    async with tenant_transaction(resources.engine, tenant) as connection:
        before = await store_derived.set_document(connection, key, sources.revision)
    outdated = sources.revision if before is None else before
    if before is None and await _is_current(resources, tenant, key, sources.revision):
        return
    if outdated:
        try:
            await resources.objects.delete(tenant, document_key(*sources.series, outdated))
        except ObjectsUnavailable as error:
            _log.warning("an outdated document stays", tenant=tenant, error=str(error))


async def _is_current(resources: Resources, tenant: str, key: int, revision: int) -> bool:
    """Whether somebody else has written the document of the same revision, so that it must stay."""
    async with tenant_transaction(resources.engine, tenant) as connection:
        return await store_derived.document_revision(connection, key) in {None, revision}


def in_chunks(packs: Iterable[IndexedPack], most: int) -> list[list[IndexedPack]]:
    """The packs in groups of so many instances at most; a larger pack is alone."""
    chunks: list[list[IndexedPack]] = []
    size = 0
    for pack in packs:
        if not chunks or size + len(pack.copies) > most:
            chunks.append([])
            size = 0
        chunks[-1].append(pack)
        size += len(pack.copies)
    return chunks
