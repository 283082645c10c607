"""What a fuzz target is."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent
NAMES: Final = ("association", "charset", "header", "identity", "metadata", "multipart", "pdu")


@dataclass(frozen=True)
class Target:
    """One target.

    Attributes:
        name: of its module in ``tests.fuzz.targets``.
        run: does something with the input; what it raises is a find.
        seeds: inputs to begin with.
        code: the packages whose branches guide the search.
        longest: bytes of the longest input.
    """

    name: str
    run: Callable[[bytes], None]
    seeds: Callable[[], Iterable[bytes]]
    code: tuple[str, ...]
    longest: int

    @property
    def corpus(self) -> Path:
        """The inputs that are kept: each reaches what no other does."""
        return FOLDER / "corpus" / self.name

    @property
    def finds(self) -> Path:
        """The inputs that once found something."""
        return FOLDER / "finds" / self.name


@cache
def target(name: str) -> Target:
    """The target of this name."""
    found: Target = import_module(f"tests.fuzz.targets.{name}").TARGET
    return found
