"""Bytes that lie about other bytes: lengths, tags, file meta information, preambles."""

import struct

from tests.support.dicom_bytes import ITEM_END, SOP_CLASS, UNDEFINED, element, implicit, item
from tests.support.hostile.corpus import CANNOT_UNDERSTAND, MISMATCH, STORED, Identity, comment, instance

_PREAMBLE = 128


@instance("length", CANNOT_UNDERSTAND)
def unknown_of_almost_four_gigabytes(identity: Identity) -> bytes:
    return identity.file(element(0x00210010, "UN", b"abcd", length=0xFFFFFFF0))


@instance("length", CANNOT_UNDERSTAND)
def pixel_data_longer_than_the_file(identity: Identity) -> bytes:
    return identity.file(element(0x7FE00010, "OW", bytes(512), length=0x7FFFFFFE))


@instance("length", STORED)
def odd_lengths(identity: Identity) -> bytes:
    return identity.file(element(0x00100020, "LO", b"odd"), comment(b"x"), element(0x00200013, "IS", b"1"))


@instance("length", CANNOT_UNDERSTAND)
def cut_in_a_header(identity: Identity) -> bytes:
    return identity.file(after=struct.pack("<HH2s", 0x0021, 0x1010, b"LO"))


@instance("length", CANNOT_UNDERSTAND)
def cut_in_a_value(identity: Identity) -> bytes:
    return identity.file(element(0x7FE00010, "OW", bytes(1000)))[:-900]


@instance("length", CANNOT_UNDERSTAND)
def undefined_length_of_text(identity: Identity) -> bytes:
    return identity.file(element(0x00210010, "UT", b"abcd", length=UNDEFINED))


@instance("length", CANNOT_UNDERSTAND)
def item_longer_than_its_sequence(identity: Identity) -> bytes:
    return identity.file(element(0x00400275, "SQ", item(b"", length=0xFFFFFF00)))


@instance("length", CANNOT_UNDERSTAND)
def delimiters_without_a_sequence(identity: Identity) -> bytes:
    return identity.file(element(0x00400275, "SQ", ITEM_END * 1000))


@instance("tags", CANNOT_UNDERSTAND)
def two_instance_uids(identity: Identity) -> bytes:
    """One reader would take the first, another the last: the wrong patient for one of them."""
    return identity.file(element(0x00080018, "UI", b"1.2.3.4."[:7] + b"\0"))


@instance("tags", STORED)
def two_patient_names(identity: Identity) -> bytes:
    return identity.file(element(0x00100010, "PN", b"First^One "), element(0x00100010, "PN", b"Second^One"))


@instance("tags", STORED)
def descending_tags(identity: Identity) -> bytes:
    return identity.head() + b"".join(reversed(identity.elements()))


@instance("tags", STORED)
def group_lengths_that_lie(identity: Identity) -> bytes:
    lies = [element(group << 16, "UL", struct.pack("<I", 0xFFFFFFF0)) for group in (0x0008, 0x0010, 0x0020)]
    return identity.file(*lies)


@instance("tags", STORED)
def private_groups_without_a_creator(identity: Identity) -> bytes:
    return identity.file(
        element(0x00091001, "LO", b"nobody's"), element(0x00090001, "UN", b"ab"), element(0x7FE11001, "OB", bytes(600))
    )


@instance("tags", STORED)
def command_group_in_the_data_set(identity: Identity) -> bytes:
    return identity.file(element(0x00000100, "US", b"\1\0"), element(0x00020010, "UI", b"1.2.840.10008.1.2\0"))


@instance("tags", MISMATCH)
def no_study(identity: Identity) -> bytes:
    elements = identity.elements()
    del elements[3]
    return identity.head() + b"".join(elements)


@instance("tags", STORED)
def unknown_representations(identity: Identity) -> bytes:
    odd = struct.pack("<HH2sHI", 0x0021, 0x1010, b"ZZ", 0, 4) + b"abcd" + implicit(0x00211012, b"abcd")
    return identity.file(after=odd)


@instance("meta", CANNOT_UNDERSTAND, over_dimse=False)
def not_dicom(_: Identity) -> bytes:
    return b"%PDF-1.7\n" * 1000


@instance("meta", CANNOT_UNDERSTAND, over_dimse=False)
def an_empty_file(_: Identity) -> bytes:
    return b""


@instance("meta", CANNOT_UNDERSTAND, over_dimse=False)
def meta_element_of_four_gigabytes(identity: Identity) -> bytes:
    return identity.head()[:132] + element(0x00020001, "OB", b"ab", length=0xFFFFFFF0) + b"".join(identity.elements())


@instance("meta", CANNOT_UNDERSTAND, over_dimse=False)
def bad_representation_in_meta(identity: Identity) -> bytes:
    """A reader that trusts the letters takes the next bytes for a length."""
    head = bytearray(identity.head())
    at = head.index(b"\x02\x00\x10\x00UI")
    head[at + 4 : at + 6] = b"\0\0"
    return bytes(head[: at + 8]) + b"".join(identity.elements())


@instance("meta", STORED, over_dimse=False)
def meta_group_length_that_lies(identity: Identity) -> bytes:
    file = bytearray(identity.file())
    file[140:144] = b"\xff\xff\xff\xff"
    return bytes(file)


@instance("meta", CANNOT_UNDERSTAND, over_dimse=False)
def meta_without_end(identity: Identity) -> bytes:
    return identity.head() + element(0x00020100, "UI", b"1.2.3.4\0") * 200_000


@instance("meta", frozenset({0xC122}), over_dimse=False)
def no_transfer_syntax(identity: Identity) -> bytes:
    return identity.head()[:132] + element(0x00020003, "UI", b"1.2.3.4\0") + b"".join(identity.elements())


@instance("meta", frozenset({0xC122}), over_dimse=False)
def transfer_syntax_that_is_a_path(identity: Identity) -> bytes:
    syntax = element(0x00020010, "UI", b"../../../../etc/passwd")
    return identity.head()[:132] + syntax + b"".join(identity.elements())


@instance("meta", STORED, over_dimse=False)
def meta_of_another_instance(identity: Identity) -> bytes:
    other = Identity(f"{identity.instance}.9", identity.study, identity.series)
    return other.head() + b"".join(identity.elements())


def _with_preamble(identity: Identity, preamble: bytes) -> bytes:
    return preamble.ljust(_PREAMBLE, b"\0")[:_PREAMBLE] + identity.file()[_PREAMBLE:]


@instance("preamble", STORED, over_dimse=False)
def preamble_of_a_windows_program(identity: Identity) -> bytes:
    return _with_preamble(identity, b"MZ" + bytes(58) + struct.pack("<I", 0x200))


@instance("preamble", STORED, over_dimse=False)
def preamble_of_a_linux_program(identity: Identity) -> bytes:
    return _with_preamble(identity, b"\x7fELF\x02\x01\x01")


@instance("preamble", STORED, over_dimse=False)
def preamble_of_a_script(identity: Identity) -> bytes:
    return _with_preamble(identity, b"#!/bin/sh\nrm -rf ~\nexit\n")


@instance("preamble", STORED, over_dimse=False)
def preamble_of_a_web_page(identity: Identity) -> bytes:
    return _with_preamble(identity, b"<html><script>alert(1)</script>")


@instance("preamble", STORED, over_dimse=False)
def preamble_of_a_tiff(identity: Identity) -> bytes:
    """Whole slide images are TIFF and DICOM at once, as the standard allows (PS3.10 section 7.1)."""
    assert SOP_CLASS
    return _with_preamble(identity, b"II*\0" + struct.pack("<IH", 8, 0) + bytes(4))
