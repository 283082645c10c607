"""Rebuilding a large catalog takes hours; the operator must see how far it is and how long it will take."""

import json
from io import StringIO

from rich.console import Console

from cli.reindex import show


def test_each_clinic_has_a_bar() -> None:
    told = [
        {"tenant": "north", "total": 2, "packs": 0, "instances": 0, "unusable": 0},
        {"tenant": "north", "total": 2, "packs": 2, "instances": 30, "unusable": 0},
        {"tenant": "south", "total": 10, "packs": 0, "instances": 0, "unusable": 0},
        {"tenant": "south", "total": 10, "packs": 4, "instances": 99, "unusable": 1},
    ]
    shown = StringIO()
    show([json.dumps(one) for one in told], Console(file=shown, width=120))
    north, south = (" ".join(line.split()) for line in shown.getvalue().splitlines()[-2:])
    assert north.startswith("north ")
    assert "2/2 packs, 30 instances" in north
    assert "4/10 packs, 99 instances" in south
