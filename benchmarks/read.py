"""Reading over DICOMweb at eight connections: Lightbox beside Orthanc with its DICOMweb plug-in.

``python -m benchmarks.read [SLICES]``. wrk asks (Debian: ``apt-get install wrk``). Lightbox checks a token on each
request and goes through its front door; Orthanc runs without authentication and is asked directly.
"""

import re
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import httpx
from pydicom import dcmread

from benchmarks.measure import interleave, report
from benchmarks.peers import orthanc
from benchmarks.samples import write_ct_series
from benchmarks.stack import running_stack

CONNECTIONS = 8
SECONDS = 4
FRAMES = "multipart/related; type=application/octet-stream; transfer-syntax=*"


def ask(root: str, paths: list[str], accept: str, token: str, scratch: Path) -> float:
    """Asks for the paths in turn over eight connections; returns answers per second.

    Raises:
        RuntimeError: an answer was not 2xx.
    """
    script = scratch / "ask.lua"
    listed = ",".join(f'"{root}{path}"' for path in paths)
    script.write_text(
        f"local p = {{{listed}}}\nlocal i = 0\n"
        "request = function() i = i % #p + 1; return wrk.format('GET', (p[i]:gsub('^%w+://[^/]+', ''))) end\n"
    )
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "-s", str(script), "-H", f"Accept: {accept}"]
    if token:
        command += ["-H", f"Authorization: Bearer {token}"]
    text = subprocess.run([*command, root], check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in text:
        raise RuntimeError(f"{root} did not answer well:\n{text}")
    found = re.search(r"Requests/sec:\s+([\d.]+)", text)
    if found is None:
        raise RuntimeError(f"wrk said nothing of use:\n{text}")
    return float(found.group(1))


def wait_for(root: str, study: str, count: int, token: str) -> None:
    """Waits until all instances of the study are found."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    for _ in range(600):
        answer = httpx.get(f"{root}/studies/{study}/instances", params={"limit": 1000}, headers=headers)
        if answer.status_code == 200 and len(answer.json()) == count:
            return
        time.sleep(0.1)
    raise RuntimeError(f"{root} does not show the study")


def main() -> None:
    """Stores one series in both and measures metadata, frames and searches."""
    slices = int(sys.argv[1]) if len(sys.argv) > 1 else 216
    with tempfile.TemporaryDirectory() as name, running_stack() as stack, orthanc(Path(name) / "orthanc") as peer:
        scratch = Path(name)
        files = write_ct_series(scratch / "ct", slices, seed=int(time.time()))
        for port, called in ((stack.edge_port, stack.edge_title), (peer.dicom_port, peer.called)):
            command = ["storescu", "-aec", called, "+sd", "127.0.0.1", str(port), str(scratch / "ct")]
            subprocess.run(command, check=True, capture_output=True)
        head = dcmread(files[0], stop_before_pixels=True)
        study, series = head.StudyInstanceUID, head.SeriesInstanceUID
        token = stack.user_token()
        roots = {"Lightbox": (f"{stack.address}/dicom-web", token), peer.name: (peer.http, "")}
        for root, bearer in roots.values():
            wait_for(root, study, slices, bearer)
        at = f"/studies/{study}/series/{series}"
        uids = [dcmread(f, specific_tags=["SOPInstanceUID"], stop_before_pixels=True).SOPInstanceUID for f in files]
        questions = {
            f"series metadata, {slices} instances": ([f"{at}/metadata"], "application/dicom+json"),
            "frames of 0.5 MB": ([f"{at}/instances/{uid}/frames/1" for uid in uids], FRAMES),
            "search for one study": ([f"/studies?StudyInstanceUID={study}"], "application/dicom+json"),
        }
        for title, (paths, accept) in questions.items():
            runs = {n: partial(ask, root, paths, accept, bearer, scratch) for n, (root, bearer) in roots.items()}
            report(f"{title}, {CONNECTIONS} connections", "answers/s", interleave(runs), ours="Lightbox")


if __name__ == "__main__":
    main()
