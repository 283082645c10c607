"""Whose a certificate and a called AE title are: remembered for a while, and for longer while PostgreSQL is away."""

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.tenancy import DATABASE_ERRORS
from services.ingest_gateway import store_nodes
from services.ingest_gateway.domain_nodes import Node

_KNOWN: Final = 4096
_UNKNOWN: Final = 1024
_UNKNOWN_SECONDS: Final = 3.0
_RETRY_SECONDS: Final = 5.0
_log = structlog.get_logger(__name__)
_Pair = tuple[bytes, str]


class NodesAway(Exception):
    """The node is not remembered, and can't be looked up now."""


@dataclass
class _Entry:
    node: Node
    asked: float
    """When the database gave it, on the monotonic clock."""
    again: float
    """When it is to be asked again."""


class Nodes:
    """Nodes as far as they are known.

    Arguments:
        engine: the catalog.
        timeout: seconds that a look-up may take.
        seconds: how long a node counts as known before it is looked up again.
        grace: the same while it can't be looked up.
    """

    def __init__(self, engine: AsyncEngine, *, timeout: float, seconds: float, grace: float) -> None:
        self._engine = engine
        self._timeout = timeout
        self._seconds = seconds
        self._grace = grace
        self._known: OrderedDict[_Pair, _Entry] = OrderedDict()
        # Apart, so that strangers can't push out who is known.
        self._unknown: OrderedDict[_Pair, float] = OrderedDict()

    async def find(self, fingerprint: bytes, called_ae_title: str) -> Node | None:
        """The node, or None when no tenant has it.

        Arguments:
            fingerprint: SHA-256 of the DER encoding of its certificate.
            called_ae_title: what it calls us.

        Raises:
            NodesAway: that can't be said now.
        """
        pair = fingerprint, called_ae_title
        now = time.monotonic()
        entry = self._known.get(pair)
        if entry is not None and now < entry.again:
            return entry.node
        if entry is None and now < self._unknown.get(pair, 0.0):
            return None
        try:
            async with asyncio.timeout(self._timeout):
                node = await store_nodes.find_node(self._engine, fingerprint, called_ae_title)
        except DATABASE_ERRORS as error:
            if entry is None or now - entry.asked > self._grace:
                raise NodesAway from error
            _log.warning("a node was let in from memory", tenant=entry.node.tenant, error=repr(error))
            entry.again = time.monotonic() + _RETRY_SECONDS
            return entry.node
        self._remember(pair, node)
        return node

    def _remember(self, pair: _Pair, node: Node | None) -> None:
        now = time.monotonic()
        self._known.pop(pair, None)
        self._unknown.pop(pair, None)
        if node is not None:
            self._known[pair] = _Entry(node, now, now + self._seconds)
        else:
            self._unknown[pair] = now + _UNKNOWN_SECONDS
        for memory, size in ((self._known, _KNOWN), (self._unknown, _UNKNOWN)):
            while len(memory) > size:
                memory.popitem(last=False)
