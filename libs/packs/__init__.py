"""Packs: immutable ZIP files of Part 10 files that explain themselves; and the metadata documents of series."""

from libs.packs.documents import document_key, series_document
from libs.packs.index import InvalidPack, PackedInstance, PackIndex, Rule, read_index
from libs.packs.layout import MeasuredInput, PackLayout, lay_out_pack
from libs.packs.reader import locate_index, verify_pack
from libs.packs.writer import PackInfo, PackInput, pack_key, write_pack

__all__ = [
    "InvalidPack",
    "MeasuredInput",
    "PackIndex",
    "PackInfo",
    "PackInput",
    "PackLayout",
    "PackedInstance",
    "Rule",
    "document_key",
    "lay_out_pack",
    "locate_index",
    "pack_key",
    "read_index",
    "series_document",
    "verify_pack",
    "write_pack",
]
