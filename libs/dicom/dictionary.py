"""Value representations by tag, for data sets that do not carry them (PS3.6, PS3.5 section 7.1.3)."""

from functools import lru_cache
from typing import Final

from pydicom.datadict import dictionary_VR, private_dictionary_VR

UNKNOWN: Final = "UN"
PIXEL_DATA: Final = 0x7FE00010
LUT_DATA: Final = 0x00283006


@lru_cache(maxsize=16384)
def vr_of(tag: int) -> str:
    """The representation of a standard attribute; may name a choice such as ``US or SS``; ``UN`` when unknown."""
    if tag & 0xFFFF == 0:
        return "UL"
    try:
        return dictionary_VR(tag)
    except KeyError:
        return UNKNOWN


def private_vr_of(tag: int, creator: str | None) -> str:
    """The representation of a private attribute, from its creator's published dictionary; ``UN`` when unknown."""
    if tag & 0xFF00 == 0:
        return "LO" if tag & 0xFFFF >= 0x10 else UNKNOWN
    if creator is None:
        return UNKNOWN
    try:
        return private_dictionary_VR(tag, creator)
    except KeyError:
        return UNKNOWN


def chosen(vr: str, tag: int, *, signed: bool, lut_entries: int) -> str:
    """One representation where the dictionary leaves a choice, for implicit VR (PS3.5 section A.1).

    Arguments:
        vr: what the dictionary says.
        tag: the attribute.
        signed: whether Pixel Representation (0028,0103) is 1.
        lut_entries: first value of LUT Descriptor (0028,3002) of the same data set.
    """
    if tag == LUT_DATA:
        return "US" if lut_entries == 1 else "OW"
    if "OW" in vr:
        return "OW"
    if "SS" in vr:
        return "SS" if signed else "US"
    return vr if len(vr) == 2 else UNKNOWN
