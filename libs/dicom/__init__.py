"""DICOM files: identifiers, header reading, the JSON model, frames, rendering and transcoding.

Everything here takes bytes from outside and answers with a value or an error of ``libs.dicom.errors``; time, memory,
nesting and the number of elements are bounded.
"""

from libs.dicom.errors import DicomError, InvalidDicom, InvalidFrame, InvalidUid, NotDicom
from libs.dicom.header import Header, read_header
from libs.dicom.identifiers import is_uid, require_uid
from libs.dicom.pixels import FrameTable

__all__ = [
    "DicomError",
    "FrameTable",
    "Header",
    "InvalidDicom",
    "InvalidFrame",
    "InvalidUid",
    "NotDicom",
    "is_uid",
    "read_header",
    "require_uid",
]
