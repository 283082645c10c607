"""The demo's studies and users on the whole stack, for tests that look at it as people do."""

import asyncio
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pydicom
import pytest
from pydicom.uid import generate_uid

from tests.support.samples import sample
from tests.support.system import SystemStack, run_lightbox


def lightbox(home: Path, *arguments: str, timeout: float = 300) -> str:
    """What a command of the command line prints; it fails the test, with all that it said, when it does not succeed."""
    done = run_lightbox(home, *arguments, timeout=timeout)
    assert done.returncode == 0, f"lightbox {' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Shown:
    """A running stack with the demo.

    Attributes:
        home: its data folder.
        url: the front door.
        head_study: the UID of the head of the north, and of the phantom of the south.
        passwords: by tenant and user.
    """

    home: Path
    url: str
    head_study: str
    passwords: dict[str, dict[str, str]]

    @classmethod
    def of(cls, home: Path) -> "Shown":
        """Runs the demo there; on a stack that has it already, that takes a moment."""
        told: dict[str, Any] = json.loads(lightbox(home, "demo", "--json", timeout=600))
        passwords = {
            one["tenant"]: {user["name"]: user["password"] for user in one["users"]} for one in told["tenants"]
        }
        return cls(home, told["address"], told["head_study"], passwords)

    def password(self, tenant: str, user: str) -> str:
        """What the user types at the log-in."""
        return self.passwords[tenant][user]

    async def send_new_study(self, tenant: str) -> str:
        """Sends a study that was never there by C-STORE to the tenant's edge; gives the patient's name as shown."""
        with tempfile.TemporaryDirectory() as folder:
            image = pydicom.dcmread(sample("MR_small.dcm").path)
            family = f"New{uuid4().hex[:8]}"
            image.PatientName = f"{family}^Arrival"
            image.PatientID = family
            for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
                setattr(image, keyword, generate_uid(prefix=None))
            image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
            image.save_as(Path(folder) / "new.dcm")
            await asyncio.to_thread(lightbox, self.home, "send", folder, "--edge", tenant)
        return f"{family.upper()}, Arrival"


@pytest.fixture(scope="session")
def shown(stack: SystemStack) -> Shown:
    """The demo on the stack of this run."""
    return Shown.of(stack.folder)
