"""Crash points: a test that asks for one and does not get it would call a service safe that was never put to it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from libs.crash import CRASH_POINTS

CHECKOUT = Path(__file__).resolve().parents[2]
_PASSES = (
    "from libs.crash import crash_point\nfor _ in range(3): crash_point('edge.synced'); print('passed', flush=True)"
)


def passes(armed: str) -> tuple[int, int]:
    """Exit code of a process that passes one point three times, and how often it came past."""
    environment = {k: v for k, v in os.environ.items() if k != "LIGHTBOX_CRASH_AT"}
    if armed:
        environment["LIGHTBOX_CRASH_AT"] = armed
    done = subprocess.run(
        [sys.executable, "-c", _PASSES], cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout.count("passed")


@pytest.mark.parametrize(
    ("armed", "code", "passed"),
    [
        ("", 0, 3),
        ("edge.synced", -signal.SIGKILL, 0),
        ("edge.synced:3", -signal.SIGKILL, 2),
        ("edge.synced:4", 0, 3),
        ("edge.written", 0, 3),
        ("edge.nowhere", 1, 0),
        ("edge.synced:x", 1, 0),
    ],
)
def test_the_process_ends_at_the_passage_that_is_meant(armed: str, code: int, passed: int) -> None:
    assert passes(armed) == (code, passed)


def test_a_file_arms_a_process_and_is_gone_before_the_crash(tmp_path: Path) -> None:
    file = tmp_path / "armed"
    assert passes(f"@{file}") == (0, 3)
    file.write_text("edge.synced:2\n")
    assert passes(f"@{file}") == (-signal.SIGKILL, 1)
    assert not file.exists(), "the next process would crash again and again"
    assert passes(f"@{file}") == (0, 3)


def test_a_file_that_asks_for_notes_ends_nothing(tmp_path: Path) -> None:
    file = tmp_path / "armed"
    file.write_text("note")
    assert passes(f"@{file}") == (0, 3)
    assert (tmp_path / "armed.passed").read_text().split() == ["edge.synced"] * 3


def test_every_point_is_somewhere_in_the_code() -> None:
    code = "".join(path.read_text() for folder in ("libs", "services") for path in (CHECKOUT / folder).rglob("*.py"))
    assert [name for name in CRASH_POINTS if f'crash_point("{name}")' not in code] == []
