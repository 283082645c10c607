"""How long a stored instance takes to be found: C-STORE at the edge until QIDO-RS in the cloud shows it.

``python -m benchmarks.visible [INSTANCES]``. One study after another, each of one slice, as a modality would send it.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
from pydicom import dcmread

from benchmarks.measure import console
from benchmarks.samples import write_ct_series
from benchmarks.stack import Stack, running_stack


def visible_after(stack: Stack, folder: Path, token: str, seed: int) -> float:
    """Seconds from the start of the C-STORE until the study is found."""
    path = write_ct_series(folder, 1, seed=seed)[0]
    study = dcmread(path, stop_before_pixels=True).StudyInstanceUID
    command = ["storescu", "-aec", stack.edge_title, "127.0.0.1", str(stack.edge_port), str(path)]
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    with httpx.Client(headers={"Authorization": f"Bearer {token}"}) as client:
        while time.perf_counter() - started < 60:
            answer = client.get(f"{stack.address}/dicom-web/studies", params={"StudyInstanceUID": study})
            if answer.status_code == 200 and answer.json():
                return time.perf_counter() - started
            time.sleep(0.02)
    raise RuntimeError(f"study {study} was not found within a minute")


def main() -> None:
    """Prints the median, the spread and the limit."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    with tempfile.TemporaryDirectory() as name, running_stack() as stack:
        token = stack.user_token()
        seeds = range(int(time.time()), int(time.time()) + count)
        seconds = [visible_after(stack, Path(name) / str(seed), token, seed) for seed in seeds]
    console.print(
        f"C-STORE → found by QIDO-RS: median {statistics.median(seconds):.2f} s, "
        f"{min(seconds):.2f} – {max(seconds):.2f} s over {count} studies (wanted: a median of 2 s at most)"
    )


if __name__ == "__main__":
    main()
