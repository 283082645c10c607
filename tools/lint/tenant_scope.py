"""Checks that the database is reached only through ``tenant_transaction``.

A connection that was opened otherwise has no tenant, sees no rows, and sooner or later somebody "repairs" that with a
role that sees all of them. Only ``libs/tenancy`` opens transactions; the places below are the exceptions, each with
its reason.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOTS = ("services", "libs", "cli")
OPENERS = frozenset({"begin", "connect", "raw_connection"})
RAW = frozenset({"create_async_engine", "create_engine", "asyncpg", "async_sessionmaker"})
UNSCOPED = "# not tenant data:"
"""A line that opens a connection for something that belongs to no tenant ends with this and the reason."""


def findings(source: str, path: str) -> Iterator[tuple[int, str]]:
    """Yields (line, message) for each place in the source that reaches the database on its own."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source, path)):
        line = getattr(node, "lineno", 0)
        if line and UNSCOPED in lines[line - 1]:
            continue
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = ast.unparse(node.func.value).rsplit(".", 1)[-1]
            if node.func.attr in OPENERS and owner.endswith("engine"):
                yield line, f"{owner}.{node.func.attr}() has no tenant: use libs.tenancy.tenant_transaction"
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None) or ""
            names = {alias.name.split(".")[0] for alias in node.names} | {module.split(".")[0]}
            if module.startswith("libs.tenancy"):
                continue
            for name in sorted(names & RAW):
                yield line, f"{name} opens connections without a tenant: use libs.tenancy.create_engine"


def main() -> int:
    """Prints what was found; the exit code says whether there was anything."""
    count = 0
    for root in ROOTS:
        for path in sorted(Path(root).rglob("*.py")):
            if path.parts[:2] == ("libs", "tenancy"):
                continue
            for line, message in findings(path.read_text(encoding="utf-8"), str(path)):
                print(f"{path}:{line}: {message}")
                count += 1
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
