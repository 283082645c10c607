"""The metadata document of a series: prepared once, sent as it lies."""

import gzip
from collections.abc import Iterable
from typing import Any, Final

import orjson

from libs.dicom.identifiers import require_uid
from libs.dicom.pixels import integer_of
from libs.dicom.walk import DicomJson
from libs.packs.index import PackedInstance

_LEVEL: Final = 6
_LAST: Final = 2**63
"""Where instances without Instance Number come in the order."""


def document_key(study: str, series: str, revision: int) -> str:
    """The object key of a series' metadata document.

    Raises:
        InvalidUid: the study or series is not a unique identifier.
    """
    require_uid(study, "Study Instance UID")
    require_uid(series, "Series Instance UID")
    return f"metadata/{study}/{series}/{revision}.json.gz"


def series_document(study: str, series: str, instances: Iterable[PackedInstance]) -> bytes:
    """The DICOM JSON of a series as a gzipped array, by Instance Number, then UID (PS3.18 section 10.4.1.1.2).

    Arguments:
        study: Study Instance UID, for the addresses of bulk data.
        series: Series Instance UID, likewise.
        instances: all of the series, in any order.

    Returns:
        gzip of the array; the same instances give the same bytes.
    """
    ordered = sorted(instances, key=lambda i: (integer_of(i.dicom, "00200013", _LAST), i.sop_instance_uid))
    documents = [instance_document(study, series, i.sop_instance_uid, i.dicom) for i in ordered]
    return gzip.compress(orjson.dumps(documents), _LEVEL, mtime=0)


def instance_document(study: str, series: str, instance: str, dicom: DicomJson) -> DicomJson:
    """The DICOM JSON of one instance with each ``BulkDataURI`` as a path-absolute address.

    It becomes ``/dicom-web/studies/S/series/E/instances/I/bulkdata/PATH``; the argument is left as it is.
    """
    base = f"/dicom-web/studies/{study}/series/{series}/instances/{instance}/bulkdata/"
    return _resolved(dicom, base)


def _resolved(dicom: DicomJson, base: str) -> DicomJson:
    return {tag: _resolved_element(element, base) for tag, element in dicom.items()}


def _resolved_element(element: dict[str, Any], base: str) -> dict[str, Any]:
    if "BulkDataURI" in element:
        return {**element, "BulkDataURI": base + element["BulkDataURI"]}
    if element.get("vr") == "SQ" and "Value" in element:
        return {**element, "Value": [_resolved(item, base) for item in element["Value"]]}
    return element
