"""Senders: DCMTK's programs for files, pynetdicom for data sets that no honest program would send."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE

from tests.services.edge_gateway.edge_process import EdgeProcess


def dcmtk(program: str) -> str:
    """The path of a DCMTK program; pynetdicom brings programs of the same names."""
    own = str(Path(sys.executable).parent)
    places = os.pathsep.join(p for p in os.environ["PATH"].split(os.pathsep) if p != own)
    found = shutil.which(program, path=places)
    if found is None:
        message = f"{program} of DCMTK is not on this machine (Debian: apt-get install dcmtk)"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return found


def storescu(edge: EdgeProcess, files: Sequence[Path], *options: str, called: str = "EDGE") -> int:
    """Sends files with storescu and gives its exit code."""
    command = [dcmtk("storescu"), *options, "-aec", called, "127.0.0.1", str(edge.dimse_port), *map(str, files)]
    return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode


def associate(
    edge: EdgeProcess, sop_class: str, transfer_syntax: str, *, called: str = "EDGE", calling: str = "TEST"
) -> Association:
    entity = AE(ae_title=calling)
    entity.add_requested_context(sop_class, transfer_syntax)
    return entity.associate("127.0.0.1", edge.dimse_port, ae_title=called)


def store_raw(association: Association, sop_class: str, uid: str, data_set: bytes) -> tuple[int, str]:
    """One C-STORE of these very bytes; status and error comment of the answer."""
    request = C_STORE()
    request.MessageID = 1
    request.AffectedSOPClassUID = sop_class
    request.AffectedSOPInstanceUID = uid
    request.Priority = 2
    request.DataSet = BytesIO(data_set)
    context = association.accepted_contexts[0]
    assert context.context_id is not None
    association._reactor_checkpoint.clear()
    association.dimse.send_msg(request, context.context_id)
    _, answer = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    if answer is None:
        return -1, ""
    assert not isinstance(answer, Dataset)
    return int(answer.Status or 0), str(getattr(answer, "ErrorComment", None) or "")
