"""``python -m tests.system.chaos``: the long round, on a stack of its own or on that of LIGHTBOX_TEST_STACK."""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.system import SystemStack, populate, running_stack
from tests.system.chaos.faults import ANY
from tests.system.chaos.judge import NotSettled
from tests.system.chaos.report import line, table
from tests.system.chaos.rig import Rig
from tests.system.chaos.rounds import Chaos, Result


@contextmanager
def _stack(folder: Path) -> Iterator[SystemStack]:
    named = os.environ.get("LIGHTBOX_TEST_STACK", "")
    if named:
        yield populate(Path(named).resolve())
        return
    folder.chmod(0o711)
    with running_stack(folder / "home"):
        yield populate(folder / "home")


def main() -> int:
    """Runs, reports; 0 when nothing was lost, doubled, changed or in the wrong tenant, and nothing got stuck."""
    asked = _arguments()
    folder = Path(tempfile.mkdtemp(prefix="lightbox-chaos-"))
    with _stack(folder) as stack:
        rig = Rig(stack.home, stack.clients)
        try:
            rig.set_up()
            chaos = Chaos(rig, folder, asked.doors.split(","))
            failed = _rounds(chaos, asked)
            chaos.close()
        finally:
            rig.tear_down()
    if failed:
        print(f"kept: {folder}, with the ledger, and the stack's data and logs where it was our own")
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--doors", default=",".join(ANY), help=f"some of {', '.join(ANY)}")
    parser.add_argument("--fault", default="", help="this fault in every run, such as kill.kafka")
    return parser.parse_args()


def _rounds(chaos: Chaos, asked: argparse.Namespace) -> bool:
    """Runs and judges; whether anything is wrong. Ctrl-C ends the round early, and what was done is judged."""
    results: list[Result] = []
    began = time.monotonic()
    with suppress(KeyboardInterrupt):
        for number in range(1, asked.runs + 1):
            result = chaos.run(asked.seed + number - 1, asked.fault)
            results.append(result)
            print(line(result, number, asked.runs, (time.monotonic() - began) / number), flush=True)
            if result.failed:
                fault = f" FAULT={asked.fault}" if asked.fault else ""
                print(f"    again: make chaos RUNS=1 SEED={result.seed} DOORS={asked.doors}{fault}", flush=True)
    print(f"{time.monotonic() - began:.0f} s; judging all of it once more", flush=True)
    try:
        findings = chaos.judge_all()
        verdict = str(findings) or "nothing lost, doubled, changed or in the wrong tenant"
        wrong = bool(findings)
    except (NotSettled, TimeoutError) as error:
        verdict, wrong = f"could not be judged: {error}", True
    print(f"\n{table(results)}\n\nall together, at the end: {verdict}")
    return wrong or any(result.failed for result in results)


if __name__ == "__main__":
    sys.exit(main())
