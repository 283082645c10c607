"""Metadata (PS3.18 section 10.4.1.1.2): the prepared document as it lies."""

import asyncio
import zlib
from collections.abc import AsyncIterator
from typing import Final

from libs.catalog.queries import SeriesRow
from services.dicomweb.audit import Operation
from services.dicomweb.domain import Content, Target, entity_tag, is_current, not_modified
from services.dicomweb.errors import NoSuchResource
from services.dicomweb.negotiate import Tiers, choose_json
from services.dicomweb.store import Store, unzip

_GZIP: Final = 16 + zlib.MAX_WBITS
_ENCODED: Final = {"Content-Encoding": "gzip"}


async def retrieve_metadata(
    store: Store, operation: Operation, target: Target, tiers: Tiers, *, takes_gzip: bool, if_none_match: str
) -> Content:
    """The DICOM JSON of a study, a series or an instance.

    Arguments:
        store: where everything is read.
        operation: what is recorded.
        target: what is asked for.
        tiers: the acceptable media types.
        takes_gzip: whether the caller can inflate the answer.
        if_none_match: the entity tags that the caller has.
    """
    media_type = choose_json(tiers)
    rows = await store.list_series(operation.tenant, target.study, target.series)
    operation.patient_id = rows[0].patient_id
    operation.instance_count = 1 if target.instance else sum(row.instance_count for row in rows)
    etag = entity_tag(target.instance, [(row.series_uid, row.key, row.revision, row.updated_at) for row in rows])
    if target.instance is not None:
        found = (await store.instance_documents(operation.tenant, rows[0])).get(target.instance)
        if found is None:
            operation.patient_id, operation.instance_count = "", 0
            raise NoSuchResource
        return not_modified(etag) if is_current(etag, if_none_match) else Content(media_type, b"[" + found + b"]", etag)
    if is_current(etag, if_none_match):
        return not_modified(etag)
    headers = _ENCODED if takes_gzip else {}
    if len(rows) > 1:
        first = await store.series_document(operation.tenant, rows[0])
        return Content(media_type, _joined(store, operation.tenant, first, rows, takes_gzip), etag, headers=headers)
    document = await store.series_document(operation.tenant, rows[0])
    return Content(
        media_type, document if takes_gzip else await asyncio.to_thread(unzip, document), etag, headers=headers
    )


async def _joined(
    store: Store, tenant: str, first: bytes, rows: list[SeriesRow], takes_gzip: bool
) -> AsyncIterator[bytes]:
    """One array out of the arrays of all series, one document in memory at a time."""
    packer = zlib.compressobj(1, zlib.DEFLATED, _GZIP) if takes_gzip else None
    lead = b"["
    for row in rows:
        document = first if row is rows[0] else await store.series_document(tenant, row)
        items = (await asyncio.to_thread(unzip, document)).strip()[1:-1]
        if items:
            yield await asyncio.to_thread(_packed, packer, lead + items)
            lead = b","
    yield _packed(packer, b"]" if lead == b"," else b"[]") + (packer.flush() if packer else b"")


def _packed(packer: "zlib._Compress | None", data: bytes) -> bytes:
    return packer.compress(data) if packer else data
