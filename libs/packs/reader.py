"""Reading a pack without unpacking it."""

import hashlib
import zlib
from pathlib import Path
from typing import BinaryIO, Final

from libs.packs.archive import (
    ENDING_LENGTH,
    Entry,
    MalformedArchive,
    central_header,
    local_header,
    read_directory,
    read_ending,
)
from libs.packs.index import INDEX_NAME, InvalidPack, PackIndex, read_index

TAIL: Final = ENDING_LENGTH + len(central_header(Entry(INDEX_NAME, 0, 0, 0, 0)))
"""How many last bytes of a pack ``locate_index`` needs."""
_LARGEST_DIRECTORY: Final = 64 * 1024 * 1024
_STEP: Final = 1024 * 1024


def locate_index(tail: bytes, size: int) -> tuple[int, int]:
    """Where the index entry's content is, from the last bytes of the pack.

    Arguments:
        tail: the last ``TAIL`` bytes of the pack, or more.
        size: bytes of the whole pack.

    Returns:
        (offset, length) of the compressed index, for ``read_index``.

    Raises:
        InvalidPack: this is not the end of a pack, or the last entry is not the index.
    """
    if len(tail) < TAIL or len(tail) > size:
        raise InvalidPack("The end of the pack is too short.")
    try:
        end = read_ending(tail, size)
        last = tail[len(tail) - TAIL : len(tail) - ENDING_LENGTH]
        (entry,) = read_directory(last, end.directory, 1)
    except MalformedArchive as error:
        raise InvalidPack(str(error)) from error
    if entry.name != INDEX_NAME:
        raise InvalidPack("The last entry of the pack is not its index.")
    return entry.offset, entry.length


def verify_pack(source: Path | BinaryIO) -> PackIndex:
    """Checks a whole pack: directory, local headers, CRC-32 and SHA-256 of each entry, and that the index fits.

    Arguments:
        source: its path, or a seekable file; read in pieces of 1 MiB.

    Raises:
        InvalidPack: anything does not fit, in words.
        OSError: it can't be read.
    """
    if isinstance(source, Path):
        with source.open("rb") as file:
            return verify_pack(file)
    entries = _entries(source)
    index_entry = entries[-1]
    index = read_index(_index_content(source, index_entry))
    if len(index.instances) != len(entries) - 1:
        raise InvalidPack("The index has another number of instances than the pack.")
    position = 0
    for instance, entry in zip(index.instances, entries, strict=False):
        if (entry.name, entry.offset, entry.length) != (
            f"{instance.sop_instance_uid}.dcm",
            instance.offset,
            instance.length,
        ):
            raise InvalidPack("The index does not fit the entries of the pack.")
        _follows(entry, position)
        if _content_digest(source, entry) != instance.sha256:
            raise InvalidPack("An instance does not have the SHA-256 of the index.")
        position = entry.offset + entry.length
    _follows(index_entry, position)
    return index


def _entries(file: BinaryIO) -> list[Entry]:
    size = file.seek(0, 2)
    try:
        end = read_ending(_bytes(file, max(0, size - ENDING_LENGTH), min(size, ENDING_LENGTH)), size)
        if end.directory_length > _LARGEST_DIRECTORY:
            raise InvalidPack("The directory of the pack is too large.")
        entries = read_directory(_bytes(file, end.directory, end.directory_length), end.directory, end.entries)
    except MalformedArchive as error:
        raise InvalidPack(str(error)) from error
    if not entries or entries[-1].name != INDEX_NAME:
        raise InvalidPack("The last entry of the pack is not its index.")
    if entries[-1].offset + entries[-1].length != end.directory:
        raise InvalidPack("There are bytes between the index and the directory of the pack.")
    return entries


def _index_content(file: BinaryIO, entry: Entry) -> bytes:
    _check_local_header(file, entry)
    content = _bytes(file, entry.offset, entry.length)
    if zlib.crc32(content) != entry.crc:
        raise InvalidPack("The index does not have its CRC-32.")
    return content


def _follows(entry: Entry, position: int) -> None:
    if entry.header != position:
        raise InvalidPack("There are bytes between the entries of the pack.")


def _content_digest(file: BinaryIO, entry: Entry) -> str:
    _check_local_header(file, entry)
    digest, crc, left = hashlib.sha256(), 0, entry.length
    file.seek(entry.offset)
    while left:
        piece = file.read(min(left, _STEP))
        if not piece:
            raise InvalidPack("The pack is cut short.")
        digest.update(piece)
        crc = zlib.crc32(piece, crc)
        left -= len(piece)
    if crc != entry.crc:
        raise InvalidPack("An entry of the pack does not have its CRC-32.")
    return digest.hexdigest()


def _check_local_header(file: BinaryIO, entry: Entry) -> None:
    expected = local_header(entry.name, entry.length, entry.crc)
    if _bytes(file, entry.header, len(expected)) != expected:
        raise InvalidPack("The header before an entry does not fit the directory of the pack.")


def _bytes(file: BinaryIO, offset: int, length: int) -> bytes:
    file.seek(offset)
    data = file.read(length)
    if len(data) != length:
        raise InvalidPack("The pack is cut short.")
    return data
