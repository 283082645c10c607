"""Search patterns in DICOM's words, as conditions of PostgreSQL (PS3.4 section C.2.2.2).

``*`` stands for any number of characters and ``?`` for exactly one. Everything else is taken literally: the
metacharacters of ``LIKE`` and of regular expressions are escaped.
"""

import re
from typing import Final

WILDCARDS: Final = ("*", "?")
_LIKE: Final = str.maketrans({"\\": "\\\\", "%": "\\%", "_": "\\_", "*": "%", "?": "_"})


def has_wildcard(pattern: str) -> bool:
    """Whether the pattern holds ``*`` or ``?``."""
    return any(w in pattern for w in WILDCARDS)


def like(pattern: str) -> str:
    """The pattern for ``LIKE``, matching the whole value.

    PostgreSQL refuses U+0000 in text: it becomes a character that no stored value holds either.
    """
    return pattern.replace("\0", "\ufffe").translate(_LIKE)


def infix(word: str) -> str:
    """The word, taken literally, anywhere in the value, for ``LIKE``."""
    escaped = word.replace("\0", "\ufffe").replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"


def name_like(pattern: str) -> str:
    """A ``LIKE`` pattern that finds every name that `name_regex` takes, by the trigram index."""
    return f"%{like(pattern.rstrip('^').strip('*'))}%"


def name_regex(pattern: str) -> str | None:
    """The regular expression that decides about a person name; ``None`` where `name_like` decides alone.

    A name has up to three component groups separated by ``=`` (PS3.5 section 6.2.1); the pattern matches in any
    of them, and a wildcard doesn't reach over the border of a group. A pattern that holds ``=`` is matched
    against the whole value. Empty components at the end don't count.
    """
    whole = "=" in pattern
    if not whole and pattern.startswith("*") and pattern.endswith("*") and not has_wildcard(pattern.strip("*")):
        return None
    any_, one = (".*", ".") if whole else ("[^=]*", "[^=]")
    parts = (any_ if c == "*" else one if c == "?" else _literal(c) for c in pattern.rstrip("^"))
    body = "".join(parts)
    return f"^{body}[=^]*$" if whole else f"(^|=){body}\\^*(=|$)"


def _literal(character: str) -> str:
    """One character without a meaning of its own in PostgreSQL's regular expressions."""
    if character == "\0":
        return "\ufffe"
    return f"\\{character}" if re.match(r"[^\w\s]", character, re.ASCII) and character.isascii() else character
