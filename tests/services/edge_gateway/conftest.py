"""One edge and its cloud for the tests that leave it alive, and edges of their own for the others."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.services.edge_gateway.edge_process import EdgeProcess, edge_with_cloud, wait_for
from tests.services.edge_gateway.stow_server import StowServer


@pytest.fixture(scope="package")
def common(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EdgeProcess, StowServer]]:
    with edge_with_cloud(tmp_path_factory.mktemp("common")) as pair:
        yield pair


@pytest.fixture
def cloud(common: tuple[EdgeProcess, StowServer]) -> Iterator[StowServer]:
    """The cloud, up, well and empty."""
    _, common_cloud = common
    common_cloud.reset()
    common_cloud.start()
    yield common_cloud
    common_cloud.behave = None
    common_cloud.start()


@pytest.fixture
def edge(common: tuple[EdgeProcess, StowServer], cloud: StowServer) -> Iterator[EdgeProcess]:
    """The common edge, with an empty spool before and after."""
    common_edge, _ = common
    yield common_edge
    cloud.behave = None
    cloud.start()
    common_edge.get("/retry", "POST")
    wait_for(lambda: common_edge.kept() == [], seconds=30, what="the spool to be empty")


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
