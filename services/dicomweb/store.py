"""Everything that is read: the catalog, the packs and the metadata documents."""

import asyncio
import gzip
import io
import zlib
from collections.abc import AsyncIterator, Hashable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import orjson
import structlog
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.catalog import queries, versions
from libs.catalog.queries import InstanceFilter, InstanceRow, SeriesFilter, SeriesRow, StudyFilter, StudyRow
from libs.catalog.versions import DifferingRow, OddRow, Version
from libs.dicom.pixels import FrameTable
from libs.dicom.walk import DicomJson
from libs.objects import BucketMissing, ObjectError, ObjectNotFound, ObjectStore, ObjectsUnavailable
from libs.packs.documents import document_key, series_document
from libs.packs.index import InvalidPack, PackedInstance, PackIndex, read_index
from libs.tenancy import tenant_transaction
from libs.web.problems import Unavailable
from services.dicomweb.caches import Cache
from services.dicomweb.errors import Damaged, NoSuchResource, TooMuchWork

LARGEST_DOCUMENT: Final = 512 << 20
"""Bytes of a metadata document after decompression."""
SEARCH_SECONDS: Final = 10
_COUNT_BEYOND: Final = 1000
_STATEMENT_TIMEOUT: Final = text("SELECT set_config('statement_timeout', :milliseconds, true)")
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Packed:
    """What the index of a pack says of one instance.

    Attributes:
        frames: where its frames are; none without pixels.
        bulk: where its bulk data is.
        dicom: its DICOM JSON, as bytes.
        weight: bytes of all that, about.
    """

    frames: FrameTable | None
    bulk: dict[str, tuple[int, int]]
    dicom: bytes
    weight: int

    def attributes(self) -> DicomJson:
        """Its DICOM JSON."""
        found: DicomJson = orjson.loads(self.dicom)
        return found


class Store:
    """Reads for one tenant at a time.

    Arguments:
        engine: the catalog.
        objects: the object store.
        index_cache: bytes of pack indexes to keep.
        document_cache: bytes of metadata documents to keep, compressed and taken apart, each.
    """

    def __init__(self, engine: AsyncEngine, objects: ObjectStore, *, index_cache: int, document_cache: int) -> None:
        self._engine = engine
        self._objects = objects
        self._indexes: Cache[tuple[str, str], dict[str, Packed]] = Cache(
            index_cache, lambda index: sum(p.weight for p in index.values())
        )
        self._documents: Cache[tuple[Hashable, ...], bytes] = Cache(document_cache, len)
        self._instances: Cache[tuple[Hashable, ...], dict[str, bytes]] = Cache(
            document_cache, lambda found: sum(len(d) + 200 for d in found.values())
        )

    @asynccontextmanager
    async def _reading(self, tenant: str, seconds: int | None = None) -> AsyncIterator[AsyncConnection]:
        """A transaction of the tenant; a catalog that is away becomes 503."""
        try:
            async with tenant_transaction(self._engine, tenant) as connection:
                if seconds is not None:
                    await connection.execute(_STATEMENT_TIMEOUT, {"milliseconds": str(seconds * 1000)})
                yield connection
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", "") == "57014":
                raise TooMuchWork from error
            if isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated:
                _log.warning("the catalog is away", error=repr(error.orig))
                raise Unavailable("The catalog can't be reached at the moment.") from error
            raise
        except (OSError, TimeoutError, PoolTimeout) as error:
            _log.warning("the catalog is away", error=repr(error))
            raise Unavailable("The catalog can't be reached at the moment.") from error
        except Exception as error:
            # The driver's own errors while connecting come as they are.
            if type(error).__module__.partition(".")[0] != "asyncpg":
                raise
            _log.warning("the catalog is away", error=repr(error))
            raise Unavailable("The catalog can't be reached at the moment.") from error

    async def check(self) -> None:
        """A health check: the catalog answers."""
        async with self._reading("health", 3) as connection:
            await connection.execute(text("SELECT 1"))

    async def search_studies(
        self, tenant: str, wanted: StudyFilter, limit: int, offset: int
    ) -> tuple[list[StudyRow], int]:
        """Studies, and how many more there are (counted up to a bound)."""
        async with self._reading(tenant, SEARCH_SECONDS) as connection:
            rows = await queries.search_studies(connection, wanted, limit=limit, offset=offset)
            if len(rows) < limit:
                return rows, 0
            cap = offset + limit + _COUNT_BEYOND
            return rows, await queries.count_studies(connection, wanted, cap=cap) - offset - limit

    async def search_series(
        self, tenant: str, wanted: SeriesFilter, limit: int, offset: int
    ) -> tuple[list[tuple[StudyRow, SeriesRow]], int]:
        """Series with their studies, and how many more there are."""
        async with self._reading(tenant, SEARCH_SECONDS) as connection:
            rows = await queries.search_series(connection, wanted, limit=limit, offset=offset)
            if len(rows) < limit:
                return rows, 0
            cap = offset + limit + _COUNT_BEYOND
            return rows, await queries.count_series(connection, wanted, cap=cap) - offset - limit

    async def search_instances(
        self, tenant: str, wanted: InstanceFilter, limit: int, offset: int
    ) -> tuple[list[tuple[StudyRow, SeriesRow, InstanceRow]], int]:
        """Instances with their series and studies, and how many more there are."""
        async with self._reading(tenant, SEARCH_SECONDS) as connection:
            rows = await queries.search_instances(connection, wanted, limit=limit, offset=offset)
            if len(rows) < limit:
                return rows, 0
            cap = offset + limit + _COUNT_BEYOND
            return rows, await queries.count_instances(connection, wanted, cap=cap) - offset - limit

    async def list_series(self, tenant: str, study_uid: str, series_uid: str | None = None) -> list[SeriesRow]:
        """The series of a study, or the one that is named.

        Raises:
            NoSuchResource: there is none.
        """
        async with self._reading(tenant) as connection:
            if series_uid is None:
                rows = await queries.list_series(connection, study_uid)
            else:
                row = await queries.find_series(connection, study_uid, series_uid)
                rows = [row] if row else []
        if not rows:
            raise NoSuchResource
        return rows

    async def list_instances(self, tenant: str, study_uid: str, series_uid: str) -> list[InstanceRow]:
        """The instances of a series by Instance Number."""
        async with self._reading(tenant) as connection:
            return await queries.list_instances(connection, study_uid, series_uid)

    async def locate_instance(self, tenant: str, study_uid: str, series_uid: str, sop_uid: str) -> InstanceRow:
        """Where one instance lies.

        Raises:
            NoSuchResource: there is none.
        """
        rows = await self.locate_page(tenant, study_uid, series_uid, sop_uid)
        if not rows:
            raise NoSuchResource
        return rows[0]

    async def locate_page(
        self,
        tenant: str,
        study_uid: str,
        series_uid: str | None = None,
        sop_uid: str | None = None,
        after: InstanceRow | None = None,
    ) -> list[InstanceRow]:
        """The next thousand instances in the order in which they lie."""
        async with self._reading(tenant) as connection:
            return await queries.locate_instances(connection, study_uid, series_uid, sop_uid, after=after)

    async def list_versions(self, tenant: str, study_uid: str, series_uid: str, sop_uid: str) -> list[Version]:
        """All that is kept under a SOP Instance UID, in the order of arrival.

        Raises:
            NoSuchResource: none of it is in this series.
        """
        async with self._reading(tenant) as connection:
            found = await versions.list_versions(connection, study_uid, series_uid, sop_uid)
        if not found:
            raise NoSuchResource
        return found

    async def list_differing(
        self, tenant: str, study_uid: str, after: tuple[str, str], limit: int
    ) -> list[DifferingRow]:
        """Versions that are kept beside other bytes, of one study or of all."""
        async with self._reading(tenant, SEARCH_SECONDS) as connection:
            return await versions.list_differing(connection, study_uid=study_uid, after=after, limit=limit)

    async def list_odd(self, tenant: str, study_uid: str, after: str, limit: int) -> list[OddRow]:
        """Instances that were stored with a warning, of one study or of all."""
        async with self._reading(tenant, SEARCH_SECONDS) as connection:
            return await versions.list_odd(connection, study_uid=study_uid, after=after, limit=limit)

    async def summarise(self, tenant: str, study_uid: str, series_uid: str | None) -> tuple[int, frozenset[str], str]:
        """Of a study or series: how many instances, their transfer syntaxes, the Patient ID."""
        async with self._reading(tenant) as connection:
            return await queries.summarise_instances(connection, study_uid, series_uid)

    async def series_document(self, tenant: str, series: SeriesRow) -> bytes:
        """The metadata of a series: gzipped DICOM JSON, prepared, or built where it isn't prepared yet."""
        key = _state(tenant, series)
        return await self._documents.get(key, lambda: self._load_document(tenant, series))

    async def instance_documents(self, tenant: str, series: SeriesRow) -> dict[str, bytes]:
        """The metadata of each instance of a series, by SOP Instance UID."""
        key = _state(tenant, series)

        async def load() -> dict[str, bytes]:
            return await asyncio.to_thread(_take_apart, await self.series_document(tenant, series))

        return await self._instances.get(key, load)

    async def _load_document(self, tenant: str, series: SeriesRow) -> bytes:
        if series.document_revision >= series.revision:
            key = document_key(series.study_uid, series.series_uid, series.document_revision)
            try:
                async with self._fetching():
                    return await self._objects.get(tenant, key)
            except NoSuchResource:
                _log.info("a metadata document is not there; building it", series=series.series_uid)
        return await self._build_document(tenant, series)

    async def _build_document(self, tenant: str, series: SeriesRow) -> bytes:
        rows = await self.list_instances(tenant, series.study_uid, series.series_uid)
        wanted = {row.sop_uid: row.pack for row in rows}
        packs = {row.pack: row for row in rows}
        found: list[PackedInstance] = []
        for pack, row in packs.items():
            index = await self._read_index(tenant, row)
            found += [i for i in index.instances if wanted.get(i.sop_instance_uid) == pack]
        return await asyncio.to_thread(series_document, series.study_uid, series.series_uid, found)

    async def packed(self, tenant: str, row: InstanceRow) -> Packed:
        """What the pack's index says of an instance.

        Raises:
            Damaged: the index isn't what was stored.
        """

        async def load() -> dict[str, Packed]:
            index = await self._read_index(tenant, row)
            return await asyncio.to_thread(lambda: {i.sop_instance_uid: _packed(i) for i in index.instances})

        index = await self._indexes.get((tenant, row.pack), load)
        if row.sop_uid not in index:
            _log.error("a pack does not list an instance that the catalog has in it", pack=row.pack)
            raise Damaged
        return index[row.sop_uid]

    async def _read_index(self, tenant: str, row: InstanceRow) -> PackIndex:
        data = await self.read(tenant, row.pack, [(row.index_offset, row.index_length)])
        try:
            return await asyncio.to_thread(read_index, data[0])
        except InvalidPack as error:
            _log.error("the index of a pack is damaged", pack=row.pack, error=str(error))
            raise Damaged from error

    async def read(self, tenant: str, pack: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Byte ranges (offset, length) of a pack.

        Raises:
            Damaged: the pack is not there, or shorter than it was.
            Unavailable: the object store is away.
        """
        try:
            async with self._fetching():
                return await self._objects.get_ranges(tenant, pack, ranges)
        except NoSuchResource as error:
            _log.error("a pack is missing", pack=pack)
            raise Damaged("It is missing in the object store.") from error

    async def stream(self, tenant: str, pack: str, offset: int, length: int) -> AsyncIterator[bytes]:
        """A byte range of a pack, piece by piece; raises as `read`."""
        try:
            async with self._fetching():
                async for piece in self._objects.stream(tenant, pack, offset, length):
                    yield piece
        except NoSuchResource as error:
            _log.error("a pack is missing", pack=pack)
            raise Damaged("It is missing in the object store.") from error

    @asynccontextmanager
    async def _fetching(self) -> AsyncIterator[None]:
        """Gives the object store's errors their answers."""
        try:
            yield
        except (ObjectNotFound, BucketMissing) as error:
            raise NoSuchResource from error
        except ObjectsUnavailable as error:
            _log.warning("the object store is away", error=str(error))
            raise Unavailable("The images can't be reached at the moment.") from error
        except ObjectError as error:
            _log.error("the object store gave another length than was stored", error=str(error))
            raise Damaged from error


def _state(tenant: str, series: SeriesRow) -> tuple[Hashable, ...]:
    """Names one state of a series for good: a catalog that was rebuilt counts its keys and revisions anew."""
    return (tenant, series.study_uid, series.series_uid, series.key, series.revision, series.updated_at)


def _packed(instance: PackedInstance) -> Packed:
    dicom = orjson.dumps(instance.dicom)
    fragments = sum(len(f) for f in instance.frames.get("fragments", [])) if instance.frames else 0
    weight = len(dicom) + 200 * len(instance.bulk) + 250 * fragments + 500
    return Packed(instance.frames, dict(instance.bulk), dicom, weight)


def unzip(document: bytes, largest: int = LARGEST_DOCUMENT) -> bytes:
    """A document without its compression.

    Raises:
        Damaged: it is not gzip, or larger than a document may be.
    """
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(document)) as stream:
            found = stream.read(largest + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise Damaged from error
    if len(found) > largest:
        raise Damaged("The metadata is larger than metadata may be.")
    return found


def _take_apart(document: bytes) -> dict[str, bytes]:
    """The instances of a document by SOP Instance UID."""
    try:
        return {i["00080018"]["Value"][0]: orjson.dumps(i) for i in orjson.loads(unzip(document))}
    except (ValueError, LookupError, TypeError) as error:
        raise Damaged from error
