"""Clients that we did not write store by STOW-RS: curl, dicomweb-client and Orthanc's DICOMweb plug-in."""

import asyncio
import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient

from libs.objects import ObjectStore
from tests.services.ingest_gateway.door import free_port
from tests.services.ingest_gateway.gateway import Gateway
from tests.services.ingest_gateway.instances import make_series, sha256, values
from tests.services.ingest_gateway.test_metadata import kept
from tests.support.backing import Backing


@pytest.fixture
def objects(backing: Backing) -> ObjectStore:
    return ObjectStore(backing.s3_endpoint, "us-east-1", backing.s3_access_key, backing.s3_secret_key, "lightbox")


def program(name: str, package: str) -> str:
    """Where a program of others is; a missing one is skipped, and is a failure under CI=true."""
    found = shutil.which(name) or shutil.which(f"/usr/sbin/{name}")
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{name} is missing (Debian: apt-get install {package})")
        pytest.skip(f"{name} is missing (Debian: apt-get install {package})")
    return found


@pytest.mark.parametrize("compressed", [False, True], ids=["as it is", "gzip"])
def test_curl_stores_several_files(
    gateway: Gateway, tenant: str, objects: ObjectStore, tmp_path: Path, compressed: bool
) -> None:
    """What an integrator tries first, straight from the manual of a scanner's vendor."""
    files = make_series(3, pixels=50_000)
    command = [program("curl", "curl"), "-sS", "--fail-with-body", "-H", f"Authorization: {token(gateway, tenant)}"]
    body = b"".join(
        b"--b\r\nContent-Type: application/dicom\r\nContent-Length: %d\r\n\r\n%b\r\n" % (len(file), file)
        for file in files
    )
    (tmp_path / "body").write_bytes(body + b"--b--\r\n")
    if compressed:
        subprocess.run(["gzip", "-f", tmp_path / "body"], check=True)
        (tmp_path / "body.gz").rename(tmp_path / "body")
        command += ["-H", "Content-Encoding: gzip"]
    command += ["-H", 'Content-Type: multipart/related; type="application/dicom"; boundary=b']
    command += ["-H", "Accept: application/dicom+json", "--data-binary", f"@{tmp_path / 'body'}"]
    done = subprocess.run([*command, f"{gateway.url}/dicom-web/studies"], capture_output=True, check=True)
    assert values(json.loads(done.stdout), "00081199", "00091001") == [sha256(file) for file in files]
    assert sorted(asyncio.run(kept(objects, tenant)).values()) == sorted(files)


def token(gateway: Gateway, tenant: str) -> str:
    return gateway.headers(tenant)["Authorization"]


def test_dicomweb_client_stores_and_reads_the_answer(gateway: Gateway, tenant: str, objects: ObjectStore) -> None:
    datasets = [pydicom.dcmread(io.BytesIO(file)) for file in make_series(3)]
    client = DICOMwebClient(f"{gateway.url}/dicom-web", headers=gateway.headers(tenant))
    answer = client.store_instances(datasets, study_instance_uid=datasets[0].StudyInstanceUID)
    assert [item.ReferencedSOPInstanceUID for item in answer.ReferencedSOPSequence] == [
        dataset.SOPInstanceUID for dataset in datasets
    ]
    assert "FailedSOPSequence" not in answer
    assert set(asyncio.run(kept(objects, tenant))) == {dataset.SOPInstanceUID for dataset in datasets}


def test_orthanc_forwards_by_stow(gateway: Gateway, tenant: str, objects: ObjectStore, tmp_path: Path) -> None:
    """Clinics route with Orthanc; its plug-in must take our answer for a success."""
    command = program("Orthanc", "orthanc orthanc-dicomweb")
    if not Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so").exists():
        program("libOrthancDicomWeb.so", "orthanc-dicomweb")
    files = make_series(3, pixels=50_000)
    http = free_port()
    settings = {
        "StorageDirectory": str(tmp_path / "storage"),
        "IndexDirectory": str(tmp_path / "index"),
        "Plugins": ["/usr/share/orthanc/plugins/libOrthancDicomWeb.so"],
        "DicomServerEnabled": False,
        "HttpPort": http,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomWeb": {
            "Enable": True,
            "Servers": {
                "cloud": {
                    "Url": f"{gateway.url}/dicom-web/",
                    "HttpHeaders": {"Authorization": token(gateway, tenant)},
                }
            },
        },
    }
    (tmp_path / "orthanc.json").write_text(json.dumps(settings))
    with running([command, str(tmp_path / "orthanc.json")], http, tmp_path / "log"):
        ids = [post(http, "/instances", file)["ID"] for file in files]
        resources = json.dumps({"Resources": ids, "Synchronous": True}).encode()
        post(http, "/dicom-web/servers/cloud/stow", resources)
    found = {uid: pydicom.dcmread(io.BytesIO(file)) for uid, file in asyncio.run(kept(objects, tenant)).items()}
    for file in files:
        sent = pydicom.dcmread(io.BytesIO(file))
        assert found[sent.SOPInstanceUID] == sent, hashlib.sha256(file).hexdigest()


def post(port: int, path: str, body: bytes) -> Any:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=body, method="POST")
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read() or b"{}")


@contextmanager
def running(command: list[str], port: int, log: Path) -> Iterator[None]:
    with log.open("w") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            for _ in range(300):
                with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                time.sleep(0.1)
            yield
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()
