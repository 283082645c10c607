"""The metadata document of a series: prepared once, sent as it lies."""

from collections.abc import Iterable

from libs.packs.index import PackedInstance


def document_key(study: str, series: str, revision: int) -> str:
    """The object key of a series' metadata document."""
    return f"metadata/{study}/{series}/{revision}.json.gz"


def series_document(study: str, series: str, instances: Iterable[PackedInstance]) -> bytes:
    """The DICOM JSON of a series as a gzipped array, by Instance Number, then UID.

    Each ``BulkDataURI`` becomes ``/dicom-web/studies/S/series/E/instances/I/bulkdata/PATH``.
    """
    raise NotImplementedError
