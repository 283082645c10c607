"""Writes the hostile instances into a folder, for any sender to send, and prints what must become of each."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.support.hostile.corpus import HostileInstance, Identity, hostile_instances


def _table(chosen: Sequence[HostileInstance]) -> Table:
    table = Table(title="hostile instances", title_justify="left")
    for column in ("class", "name", "must be"):
        table.add_column(column)
    for one in chosen:
        fate = "stored" if one.stored else "refused: " + " or ".join(f"{code:04X}" for code in sorted(one.refused))
        table.add_row(one.kind, one.name, fate)
    return table


def main() -> None:
    """Lists, or writes and lists."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.hostile", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="where to write them; without it they are only listed")
    parser.add_argument("--name", action="append", help="only this one; may be repeated")
    arguments = parser.parse_args()
    known = hostile_instances()
    unknown = set(arguments.name or ()) - {one.name for one in known}
    if unknown:
        sys.exit(f"There is no hostile instance {', '.join(sorted(unknown))}; without arguments all are listed.")
    chosen = [one for one in known if not arguments.name or one.name in arguments.name]
    if arguments.folder is not None:
        arguments.folder.mkdir(parents=True, exist_ok=True)
        for one in chosen:
            (arguments.folder / f"{one.name}.dcm").write_bytes(one.make(Identity.new()))
    console = Console()
    console.print(_table(chosen))
    if arguments.folder is not None:
        console.print(
            f"Written to {arguments.folder}. Send them: lightbox send --edge TENANT {arguments.folder}", soft_wrap=True
        )


if __name__ == "__main__":
    main()
