"""Whether one JSON Schema may take the place of another while producers and consumers of both run."""

from collections.abc import Iterator
from typing import Any

_FOR_READERS = frozenset({"title", "description", "default", "examples", "$schema", "$id", "$defs", "required"})
"""What may change freely, or is compared on its own."""


def breaks(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What in the new schema would break those who rely on the old one; empty when nothing does.

    An optional property may be added. Nothing may be removed, required or not be required any more, or take other
    values: an old consumer reads new events, and a new consumer reads old ones.
    """
    return list(_differences(old, new, old.get("$defs", {}), new.get("$defs", {}), "event"))


def _differences(
    old: Any, new: Any, old_definitions: dict[str, Any], new_definitions: dict[str, Any], where: str
) -> Iterator[str]:
    old, new = _resolved(old, old_definitions), _resolved(new, new_definitions)
    if not isinstance(old, dict) or not isinstance(new, dict):
        if old != new:
            yield f"{where} was {old!r} and is {new!r}"
        return
    if set(old.get("required", ())) != set(new.get("required", ())):
        changed = sorted(set(old.get("required", ())) ^ set(new.get("required", ())))
        yield f"{where}: what is required has changed ({', '.join(changed)})"
    for name in sorted((old.keys() | new.keys()) - _FOR_READERS - {"properties"}):
        yield from _differences(old.get(name), new.get(name), old_definitions, new_definitions, f"{where}.{name}")
    had, has = old.get("properties", {}), new.get("properties", {})
    for name in sorted(had):
        if name not in has:
            yield f"{where}.{name} was removed"
        else:
            yield from _differences(had[name], has[name], old_definitions, new_definitions, f"{where}.{name}")


def _resolved(schema: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(schema, dict) and isinstance(schema.get("$ref"), str):
        return definitions[schema["$ref"].rsplit("/", 1)[-1]]
    return schema
