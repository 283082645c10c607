"""One target under libFuzzer, in a process of its own; ``python -m tests.fuzz`` starts it.

What a target raises is written down with its trace, once for each place that raises it, and the search goes on.
"""

import hashlib
import shlex
import sys
import traceback
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Final

import atheris

from tests.fuzz.target import FOLDER

_ROOT: Final = FOLDER.parents[1]
_MOST_FINDS: Final = 20


def _place(trace: TracebackType | None) -> str:
    """The innermost line of ours that raised."""
    place = "?"
    for frame in traceback.extract_tb(trace):
        if frame.filename.startswith(str(_ROOT)) and "/.venv/" not in frame.filename:
            place = f"{Path(frame.filename).relative_to(_ROOT)}:{frame.lineno}"
    return place


def main() -> None:
    """Arguments: the target's name, the folder for finds, and libFuzzer's own."""
    name, finds, *arguments = sys.argv[1:]
    module = f"tests.fuzz.targets.{name}"
    with atheris.instrument_imports(include=["libs.dicom", "libs.dimse", "services.ingest_gateway.multipart"]):
        chosen = import_module(module).TARGET
    known: set[str] = set()

    def test_one_input(data: bytes) -> None:
        try:
            chosen.run(data)
        except Exception as error:
            place = f"{type(error).__name__} at {_place(error.__traceback__)}"
            if place in known:
                return
            known.add(place)
            path = Path(finds) / hashlib.sha256(place.encode()).hexdigest()[:16]
            path.write_bytes(data)
            path.with_suffix(".txt").write_text(f"{place}\n\n{''.join(traceback.format_exception(error))}")
            print(f"FIND {place}: {error!s:.200}", file=sys.stderr, flush=True)
            if len(known) >= _MOST_FINDS:
                raise

    # To merge, libFuzzer starts itself anew, by a shell, with what stands here first.
    itself = shlex.join((sys.executable, "-m", "tests.fuzz.worker", name, finds))
    atheris.Setup([itself, *arguments], test_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
