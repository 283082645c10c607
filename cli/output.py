"""How commands speak: to people in colours and tables, to machines in JSON, and of errors with what helps."""

import json
from typing import Any, Final

from rich.console import Console

out: Final = Console()
err: Final = Console(stderr=True)


class CliError(Exception):
    """A command can't do what it was asked.

    Arguments:
        what: what is wrong.
        help_text: what helps.
        code: the exit code.
    """

    def __init__(self, what: str, help_text: str = "", *, code: int = 1) -> None:
        super().__init__(what)
        self.what = what
        self.help_text = help_text
        self.code = code


def print_json(value: Any) -> None:
    """Writes one JSON document to standard output, without colours and line breaks of a terminal."""
    out.file.write(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def print_next(*steps: tuple[str, str]) -> None:
    """Says what to do next.

    Arguments:
        steps: pairs of a command or address and what it is good for.
    """
    width = max(len(command) for command, _ in steps)
    out.print()
    for command, purpose in steps:
        out.print(f"  [bold cyan]{command:<{width}}[/]  {purpose}", highlight=False, soft_wrap=True)


def human_bytes(count: int) -> str:
    """A size for people: ``312 MB``."""
    if count < 1000:
        return f"{count} B"
    size = float(count)
    for unit in ("kB", "MB", "GB", "TB"):
        size /= 1000
        if size < 1000 or unit == "TB":
            return f"{size:.0f} {unit}" if size >= 10 else f"{size:.1f} {unit}"
    return ""
