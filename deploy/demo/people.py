"""The demo's tenants and their users."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Person:
    """A user.

    Attributes:
        name: what is typed at the log-in.
        display_name: what the others read.
        role: one of the roles of ``libs.auth``.
    """

    name: str
    display_name: str
    role: str


@dataclass(frozen=True)
class Hospital:
    """A tenant with one edge.

    Attributes:
        tenant: its identifier.
        name: its name for people.
        ae_title: what its scanners call.
        people: its users, one a role.
    """

    tenant: str
    name: str
    ae_title: str
    people: tuple[Person, ...]


NORTH: Final = Hospital(
    "north",
    "Northern Clinic",
    "NORTH",
    (
        Person("anna", "Anna Hansen", "radiologist"),
        Person("tom", "Tom Becker", "technologist"),
        Person("vera", "Vera Novak", "viewer"),
        Person("adam", "Adam Lind", "tenant-administrator"),
    ),
)
SOUTH: Final = Hospital(
    "south",
    "Southern Hospital",
    "SOUTH",
    (
        Person("rosa", "Rosa Marino", "radiologist"),
        Person("theo", "Theo Costa", "technologist"),
        Person("vito", "Vito Greco", "viewer"),
        Person("alma", "Alma Silva", "tenant-administrator"),
    ),
)
HOSPITALS: Final = (NORTH, SOUTH)
EDGE_NAME: Final = "edge"
"""Each of them has one edge of this name."""
