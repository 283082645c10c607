"""``python -m libs.events.schemas [--check]``: writes schemas and catalogue, or says what is out of date."""

import sys

from libs.events.schemas import BreakingChange, generate
from libs.events.schemas.catalogue import PAGE, catalogue


def main(arguments: list[str]) -> int:
    """Runs the command; the exit code is 1 when something is out of date, or would break."""
    try:
        files = generate() | {PAGE: catalogue()}
    except BreakingChange as error:
        sys.stderr.write(f"{error}\n")
        return 1
    outdated = [path for path, text in files.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in outdated:
        if "--check" in arguments:
            sys.stderr.write(f"{path.name} is out of date: python -m libs.events.schemas\n")
        else:
            path.write_text(files[path], encoding="utf-8")
            sys.stderr.write(f"wrote {path.name}\n")
    return 1 if outdated and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
