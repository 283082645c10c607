"""One edge and its cloud for the tests that leave it alive, and edges of their own for the others."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.services.edge_gateway.edge_process import EdgeProcess, wait_for
from tests.services.edge_gateway.stow_server import StowServer


@pytest.fixture(scope="package")
def common_cloud() -> Iterator[StowServer]:
    server = StowServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="package")
def common_edge(common_cloud: StowServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EdgeProcess]:
    edge = EdgeProcess(tmp_path_factory.mktemp("common") / "spool", common_cloud.port)
    edge.start()
    yield edge
    edge.stop()


@pytest.fixture
def cloud(common_cloud: StowServer) -> Iterator[StowServer]:
    """The cloud, up, well and empty."""
    common_cloud.reset()
    common_cloud.start()
    yield common_cloud
    common_cloud.behave = None
    common_cloud.start()


@pytest.fixture
def edge(common_edge: EdgeProcess, cloud: StowServer) -> Iterator[EdgeProcess]:
    """The common edge, with an empty spool before and after."""
    yield common_edge
    cloud.behave = None
    cloud.start()
    common_edge.get("/retry", "POST")
    wait_for(lambda: common_edge.files() == [], seconds=30, what="the spool to be empty")


@pytest.fixture
def make_edge(tmp_path: Path, cloud: StowServer) -> Iterator[Callable[..., EdgeProcess]]:
    """Starts an edge of its own; ``spool``, ``health`` to wait for and any setting may be given."""
    started: list[EdgeProcess] = []

    def make(spool: Path | None = None, health: str = "/health/ready", **settings: object) -> EdgeProcess:
        edge = EdgeProcess(spool or tmp_path / "spool", cloud.port, **settings)
        started.append(edge)
        edge.start(health)
        return edge

    yield make
    for edge in started:
        edge.stop()
