"""Searching (PS3.18 section 10.6)."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from libs.catalog.queries import InstanceRow, SeriesRow
from services.dicomweb.audit import Operation
from services.dicomweb.errors import NoSuchResource
from services.dicomweb.parameters import Level, Search
from services.dicomweb.results import Dataset, Results
from services.dicomweb.store import Store

WIDEST: Final = 100
"""Results of a search for series or instances that names no study: each may need a document of its own."""
_AT_ONCE: Final = 4


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        body: the results as a JSON array; empty when there are none.
        count: how many.
        warnings: what the caller should know, in words.
    """

    body: bytes
    count: int
    warnings: tuple[str, ...]


async def search(
    store: Store, operation: Operation, base: str, wanted: Search, level: Level, *, study: bool, series: bool
) -> Found:
    """Searches one level.

    Arguments:
        store: where everything is read.
        operation: what is recorded.
        base: the address under which the service is seen.
        wanted: what to search for.
        level: what to search.
        study: whether the path names a study, so that its attributes aren't repeated.
        series: whether it names a series.
    """
    limit = wanted.limit if level == "study" or study else min(wanted.limit, WIDEST)
    if wanted.nothing or not limit:
        return Found(b"", 0, wanted.warnings)
    results = Results(base, wanted.include)
    tenant = operation.tenant
    found: list[Dataset]
    if level == "study":
        studies, more = await store.search_studies(tenant, wanted.filter.series.study, limit, wanted.offset)
        found = [results.study(row) for row in studies]
    elif level == "series":
        pairs, more = await store.search_series(tenant, wanted.filter.series, limit, wanted.offset)
        found = [results.series(row, None if study else of) for of, row in pairs]
    else:
        rows, more = await store.search_instances(tenant, wanted.filter, limit, wanted.offset)
        known = await _attributes(store, tenant, {row.key: row for _, row, _ in rows}, [row for _, _, row in rows])
        found = [
            results.instance(row, known[row.sop_uid], None if series else of, None if study else whole)
            for whole, of, row in rows
        ]
    operation.instance_count = len(found)
    warnings = wanted.warnings if not more else (*wanted.warnings, _remaining(more))
    return Found(orjson.dumps(found) if found else b"", len(found), warnings)


async def _attributes(
    store: Store, tenant: str, series: Mapping[int, SeriesRow], rows: list[InstanceRow]
) -> Mapping[str, Mapping[str, Any]]:
    """The DICOM JSON of instances, out of the documents of their series, a few at a time."""
    places = asyncio.Semaphore(_AT_ONCE)

    async def load(row: SeriesRow) -> Mapping[str, bytes]:
        async with places:
            try:
                return await store.instance_documents(tenant, row)
            except NoSuchResource:
                return {}

    documents = dict(zip(series, await asyncio.gather(*(load(row) for row in series.values())), strict=True))
    return {row.sop_uid: orjson.loads(documents[row.series_key].get(row.sop_uid, b"{}")) for row in rows}


def _remaining(more: int) -> str:
    """The hint that not everything was given (PS3.18 section 8.3.4.4.1)."""
    number = f"{more}" if more < 1000 else "1000 or more"
    return f"There are {number} additional results that can be requested."
