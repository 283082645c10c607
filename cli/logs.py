"""``lightbox logs``: what the parts have written."""

import json as jsonlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from cli.output import CliError, out
from deploy.local.home import Home, find_home

_LONGEST_TAIL = 1 << 20


def logs(
    part: Annotated[str, typer.Argument(help="A part; all parts when left out.")] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines are written.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many lines back to begin.")] = 30,
    json: Annotated[bool, typer.Option("--json", help="Write the lines as they are.")] = False,
) -> None:
    """Show what a part, or every part, has written to its log."""
    files = _files(find_home(), part)
    many = len(files) > 1
    for name, line in _recent(files, lines):
        _print(name if many else "", line, raw=json)
    if follow:
        for name, line in _new_lines(files):
            _print(name if many else "", line, raw=json)


def _files(home: Home, part: str) -> dict[str, Path]:
    """The logs of the part, or of the parts whose names begin so."""
    found = {file.stem: file for file in sorted((home.folder / "logs").glob("*.log"))}
    if not found:
        raise CliError(f"There are no logs in {home.folder}.", "Start: lightbox up")
    if not part:
        return found
    if part in found:
        return {part: found[part]}
    alike = {name: file for name, file in found.items() if name.startswith(part)}
    if not alike:
        raise CliError(f"There is no log of {part!r}.", f"Logs: {', '.join(found)}")
    return alike


def _recent(files: dict[str, Path], lines: int) -> Iterator[tuple[str, str]]:
    """The last lines of each file."""
    for name, file in files.items():
        with file.open("rb") as source:
            size = source.seek(0, 2)
            source.seek(max(0, size - _LONGEST_TAIL))
            for line in source.read().decode(errors="replace").splitlines()[-lines:] if lines else ():
                yield name, line


def _new_lines(files: dict[str, Path]) -> Iterator[tuple[str, str]]:
    """Whole lines as they are written, until interrupted; a log that was rotated is opened anew."""
    opened: dict[str, BinaryIO] = {}
    for name, file in files.items():
        opened[name] = file.open("rb")
        opened[name].seek(0, 2)
    while True:
        quiet = True
        for name, source in list(opened.items()):
            for line in iter(source.readline, b""):
                quiet = False
                yield name, line.decode(errors="replace").rstrip("\n")
            place = files[name]
            if place.exists() and place.stat().st_size < source.tell():
                source.close()
                opened[name] = place.open("rb")
        if quiet:
            time.sleep(0.3)


def _print(name: str, line: str, *, raw: bool) -> None:
    prefix = f"{name:<14} " if name else ""
    out.print(f"{prefix}{line if raw else _readable(line)}", markup=False, highlight=False, soft_wrap=True)


def _readable(line: str) -> str:
    """A structured line as text; any other as it is."""
    if not line.startswith("{"):
        return line
    try:
        fields = jsonlib.loads(line)
    except ValueError:
        return line
    first = [
        str(fields.pop("timestamp", fields.pop("ts", "")))[:23],
        str(fields.pop("level", "")).upper(),
        str(fields.pop("event", fields.pop("msg", ""))),
    ]
    trace = fields.pop("exception", "")
    rest = [f"{key}={value}" for key, value in fields.items() if key not in ("service", "logger")]
    return " ".join(word for word in (*first, *rest) if word) + (f"\n{trace}" if trace else "")
