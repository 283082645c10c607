"""What fuzzing has kept and found, again: a fault that comes back shows here."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.target import NAMES, target

_SECONDS = 5.0


def _finds() -> Iterator[tuple[str, Path]]:
    for name in NAMES:
        yield from ((name, path) for path in sorted(target(name).finds.glob("*")) if path.suffix != ".txt")


@pytest.mark.parametrize("name", NAMES)
def test_the_seeds_and_the_corpus(name: str) -> None:
    chosen = target(name)
    inputs = [*chosen.seeds(), *(path.read_bytes() for path in sorted(chosen.corpus.glob("*")))]
    assert inputs
    for data in inputs:
        began = time.process_time()
        chosen.run(data)
        assert time.process_time() - began < _SECONDS, data[:100]


@pytest.mark.parametrize(("name", "path"), list(_finds()), ids=lambda value: getattr(value, "name", value))
def test_a_find(name: str, path: Path) -> None:
    began = time.process_time()
    target(name).run(path.read_bytes())
    assert time.process_time() - began < _SECONDS
