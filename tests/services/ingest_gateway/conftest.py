"""Fixtures of the ingest gateway's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services.ingest_gateway.gateway import Gateway, running_gateway, settings_for
from tests.support.backing import Backing
from tests.support.tokens import TokenIssuer, token_issuer

__all__ = ["token_issuer"]


@pytest.fixture(scope="session")
def gateway(backing: Backing, token_issuer: TokenIssuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with everything in its place."""
    spool: Path = tmp_path_factory.mktemp("spool")
    with running_gateway(settings_for(backing, token_issuer, spool), token_issuer) as running:
        yield running
