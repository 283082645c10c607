"""``python -m services NAME [COMMAND …]`` starts a service, or runs one of its commands."""

import sys
from importlib import import_module
from pathlib import Path


def names() -> list[str]:
    """The services that exist, by folder."""
    return sorted(p.parent.name for p in Path(__file__).parent.glob("*/main.py"))


def main() -> None:
    """Hands over to the ``run`` of the service's ``main.py``."""
    if len(sys.argv) < 2 or sys.argv[1].replace("-", "_") not in names():
        sys.exit(f"usage: python -m services NAME [COMMAND]\nNAME is one of: {', '.join(names())}")
    import_module(f"services.{sys.argv[1].replace('-', '_')}.main").run(sys.argv[2:])


if __name__ == "__main__":
    main()
