"""``python -m tests.fuzz [TARGET …]``: fuzzes each target for a while, shows how it goes, and sums up.

The working corpus is kept in ``.fuzz/`` and the next run goes on from there. What was found is written to
``tests/fuzz/finds/``, where the tests take it up. ``--keep`` adds to the corpus in the repository what reaches more.
"""

import argparse
import hashlib
import importlib.util
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.table import Table

from tests.fuzz.target import FOLDER, NAMES, Target, target

_ROOT: Final = FOLDER.parents[1]
_WORK: Final = _ROOT / ".fuzz"
_MEMORY: Final = 1024
_INPUT_SECONDS: Final = 10
_LONGEST_KEPT: Final = 2048
_MOST_KEPT: Final = 250
_STATUS: Final = re.compile(r"#(\d+)\s.*?cov: (\d+) ft: (\d+) corp: (\d+)/\S+.*?exec/s: (\d+) rss: (\d+)Mb")


@dataclass
class Run:
    """One target's run, as libFuzzer tells of it.

    Attributes:
        target: what is fuzzed.
        seconds: how long it is to run.
        executed, coverage, features, corpus, rate, memory: as last told.
        finds: places that raised, and inputs that were too slow or took too much memory.
        began: on the monotonic clock.
        ended: the same; 0 while it runs.
        note: what else is to be said.
    """

    target: Target
    seconds: int
    executed: int = 0
    coverage: int = 0
    features: int = 0
    corpus: int = 0
    rate: int = 0
    memory: int = 0
    finds: list[str] = field(default_factory=list)
    began: float = 0.0
    ended: float = 0.0
    note: str = ""

    def hear(self, line: str) -> None:
        """Takes in one line of libFuzzer's output."""
        if told := _STATUS.search(line):
            self.executed, self.coverage, self.features, self.corpus, self.rate, self.memory = map(int, told.groups())
        elif line.startswith("FIND "):
            self.finds.append(line.removeprefix("FIND ").strip())
        elif "ERROR: libFuzzer" in line:
            self.finds.append(line.partition("ERROR: ")[2].strip())


def _table(runs: Iterable[Run]) -> Table:
    table = Table(title="fuzzing", title_justify="left", expand=False)
    for column in ("target", "time", "inputs", "a second", "branches", "features", "corpus", "memory", "finds"):
        table.add_column(column, justify="left" if column == "target" else "right")
    for run in runs:
        spent = (run.ended or time.monotonic()) - run.began if run.began else 0.0
        table.add_row(
            run.target.name,
            f"{spent:.0f} of {run.seconds} s" if run.began else "waits",
            f"{run.executed:,}",
            f"{run.executed / spent:,.0f}" if spent > 1 else "",
            str(run.coverage),
            str(run.features),
            str(run.corpus),
            f"{run.memory} MB",
            f"[red]{len(run.finds)}[/red]" if run.finds else "0",
        )
    return table


def _write_seeds(chosen: Target, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for data in chosen.seeds():
        (folder / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data[: chosen.longest])


def _command(chosen: Target, *arguments: str) -> list[str]:
    chosen.finds.mkdir(parents=True, exist_ok=True)
    return [
        sys.executable,
        "-m",
        "tests.fuzz.worker",
        chosen.name,
        str(chosen.finds),
        f"-max_len={chosen.longest}",
        f"-rss_limit_mb={_MEMORY}",
        f"-timeout={_INPUT_SECONDS}",
        f"-artifact_prefix={chosen.finds}/",
        *arguments,
    ]


def _fuzz(run: Run, live: Live, runs: list[Run]) -> None:
    """Runs libFuzzer until the time is up, again when an input took it down."""
    chosen, run.began = run.target, time.monotonic()
    work, seeds = _WORK / chosen.name / "corpus", _WORK / chosen.name / "seeds"
    work.mkdir(parents=True, exist_ok=True)
    _write_seeds(chosen, seeds)
    chosen.corpus.mkdir(parents=True, exist_ok=True)
    executed = 0
    with (_WORK / f"{chosen.name}.log").open("w") as log:
        while (left := run.seconds - int(time.monotonic() - run.began)) > 0:
            arguments = _command(chosen, f"-max_total_time={left}", str(work), str(chosen.corpus), str(seeds))
            process = subprocess.Popen(
                arguments, cwd=_ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
            )
            assert process.stderr
            try:
                for line in process.stderr:
                    log.write(line)
                    run.hear(line)
                    live.update(_table(runs))
                code = process.wait()
            except BaseException:
                process.kill()
                process.wait()
                raise
            executed += run.executed
            if code == 0:
                break
            if run.executed == 0 and not run.finds:
                run.note = f"it ended with {code} before it began; see {log.name}"
                break
    run.executed = max(executed, run.executed)
    run.ended = time.monotonic()
    if not run.finds and chosen.finds.exists() and not any(chosen.finds.iterdir()):
        chosen.finds.rmdir()


def _keep(chosen: Target) -> int:
    """Adds to the corpus of the repository what reaches more than it does; short inputs only, and not too many."""
    work = _WORK / chosen.name / "corpus"
    before = len(list(chosen.corpus.glob("*")))
    short = _WORK / chosen.name / "short"
    short.mkdir(exist_ok=True)
    for path in work.glob("*"):
        if path.stat().st_size <= _LONGEST_KEPT:
            (short / path.name).write_bytes(path.read_bytes())
    command = _command(chosen, "-merge=1", str(chosen.corpus), str(short))
    subprocess.run(command, cwd=_ROOT, capture_output=True, timeout=600, check=False)
    kept = sorted(chosen.corpus.glob("*"), key=lambda path: path.stat().st_size)
    for path in kept[_MOST_KEPT:]:
        path.unlink()
    return len(kept[:_MOST_KEPT]) - before


def main() -> int:
    """Runs the targets that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(NAMES)}; by default all")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default: 60)")
    parser.add_argument("--keep", action="store_true", help="add to the corpus of the repository what reaches more")
    arguments = parser.parse_args()
    console = Console()
    if unknown := [name for name in arguments.targets if name not in NAMES]:
        console.print(f"There is no target {', '.join(unknown)}; there are {', '.join(NAMES)}.")
        return 2
    if importlib.util.find_spec("atheris") is None:
        console.print(
            "atheris is not installed: it has no wheel for this Python or this machine, so nothing was fuzzed."
        )
        return 2
    runs = [Run(target(name), arguments.seconds) for name in arguments.targets or NAMES]
    with Live(_table(runs), console=console, refresh_per_second=2) as live:
        for run in runs:
            _fuzz(run, live, runs)
            if arguments.keep:
                run.note = f"{run.note} {_keep(run.target)} inputs more are kept".strip()
            live.update(_table(runs))
    for run in runs:
        for find in run.finds:
            console.print(f"[red]{run.target.name}[/red]: {find}", soft_wrap=True, highlight=False)
        if run.note:
            console.print(f"{run.target.name}: {run.note}", soft_wrap=True, highlight=False)
    if any(run.finds for run in runs):
        console.print("The inputs are in tests/fuzz/finds/; `pytest tests/fuzz` fails until they are mended.")
        return 1
    return 0 if all(run.executed for run in runs) else 2


if __name__ == "__main__":
    sys.exit(main())
