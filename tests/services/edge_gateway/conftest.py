"""An edge of its own for each test, and the cloud it forwards to."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.services.edge_gateway.edge_process import EdgeProcess
from tests.services.edge_gateway.stow_server import StowServer


@pytest.fixture
def cloud() -> Iterator[StowServer]:
    server = StowServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def make_edge(tmp_path: Path, cloud: StowServer) -> Iterator[Callable[..., EdgeProcess]]:
    """Starts an edge; ``spool`` and any setting may be given."""
    started: list[EdgeProcess] = []

    def make(spool: Path | None = None, **settings: object) -> EdgeProcess:
        edge = EdgeProcess(spool or tmp_path / "spool", cloud.port, **settings)
        started.append(edge)
        edge.start()
        return edge

    yield make
    for edge in started:
        edge.stop()


@pytest.fixture
def edge(make_edge: Callable[..., EdgeProcess]) -> EdgeProcess:
    return make_edge()
