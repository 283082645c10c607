"""Refused, doubled and unannounced images on the whole stack, looked after by the command line as an operator does."""

import json
import time
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest

from cli.identity_api import IdentityApi
from deploy.local.credentials import load_credentials
from deploy.local.home import read_json
from deploy.local.servers import addresses
from libs.tenancy import bucket_name
from tests.services.ingest_gateway.instances import TYPE, make_instance, multipart, new_uid, sha256
from tests.support.system import SystemStack, run_lightbox

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]
PATH = "/api/ingest/quarantine"


def lightbox(stack: SystemStack, *arguments: str, code: int = 0) -> Any:
    """What a command prints as JSON."""
    done = run_lightbox(stack.folder, *arguments, "--json")
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout) if done.stdout.strip() else None


def send(client: httpx.Client, *files: bytes) -> httpx.Response:
    return client.post("/dicom-web/studies", content=multipart(files), headers={"Content-Type": TYPE})


def wait_for_study(client: httpx.Client, study: str) -> None:
    """Waits until a search finds the study."""
    for _ in range(300):
        if client.get("/dicom-web/studies", params={"StudyInstanceUID": study}).status_code == 200:
            return
        time.sleep(0.1)
    pytest.fail("the study can't be found")


def test_an_operator_finds_looks_at_and_decides_about_what_was_refused(stack: SystemStack, tmp_path: Path) -> None:
    """Nothing that a scanner sends is lost to view, and what is removed leaves a record."""
    junk = b"no image: " + new_uid().encode() * 20
    name = sha256(junk)
    with stack.client("north") as north:
        assert send(north, junk).status_code == 409
    entries = lightbox(stack, "quarantine", "list", "north")["entries"]
    assert name in [entry["id"] for entry in entries]
    assert lightbox(stack, "quarantine", "show", "north", name[:12])["sender"] == "client:tests"
    target = tmp_path / "looked-at.bin"
    lightbox(stack, "quarantine", "download", "north", name, "--to", str(target))
    assert target.read_bytes() == junk
    lightbox(stack, "quarantine", "release", "north", name, code=1)
    lightbox(stack, "quarantine", "discard", "north", name, "--yes", "--reason", "not an image")
    assert name[:12] not in run_lightbox(stack.folder, "quarantine", "list", "north").stdout


def test_an_entry_of_another_clinic_is_like_none(stack: SystemStack) -> None:
    """Another hospital's refused images show its patients as much as those it has stored."""
    junk = b"of the north: " + new_uid().encode() * 20
    with stack.client("north") as north:
        send(north, junk)
    with IdentityApi.of_stack(stack.home) as identity:
        client = identity.create_client("south", "caretaker", ["quarantine:admin"])
        token = identity.token(*client)
    with httpx.Client(base_url=stack.url, headers={"Authorization": f"Bearer {token}"}, timeout=60) as south:
        assert sha256(junk) not in south.get(PATH).text
        for method, rest in (("GET", ""), ("GET", "/content"), ("POST", "/release"), ("POST", "/discard?reason=none")):
            theirs = south.request(method, f"{PATH}/{sha256(junk)}{rest}")
            nobodys = south.request(method, f"{PATH}/{'0' * 64}{rest}")
            assert theirs.status_code == nobodys.status_code == 404, rest
            assert theirs.json()["detail"] == nobodys.json()["detail"], rest
    with stack.client("north") as reader:
        assert reader.get(PATH).status_code == 403, "reading and storing is not looking after the quarantine"


def test_a_clinic_that_refuses_duplicates_can_still_keep_one(stack: SystemStack) -> None:
    """A duplicate that turns out to be wanted is kept as a version, beside what is shown."""
    study, series, uid = new_uid(), new_uid(), new_uid()
    first, second = (make_instance(study=study, series=series, uid=uid, note=note) for note in ("first", "second"))
    place = f"/dicom-web/studies/{study}/series/{series}/instances/{uid}"
    assert lightbox(stack, "tenant", "set", "south", "--duplicates", "refuse")["duplicates"] == "refuse"
    try:
        with stack.client("south") as south:
            assert send(south, first).status_code == 200
            wait_for_study(south, study)
            assert send_until_refused(south, second, study, series).status_code == 409
            lightbox(stack, "quarantine", "release", "south", sha256(second), "--as-version")
            for _ in range(300):
                versions = south.get(f"{place}/versions").json()["versions"]
                if len(versions) == 2:
                    break
                time.sleep(0.1)
            assert [(v["sha256"], v["shown"]) for v in versions] == [(sha256(first), True), (sha256(second), False)]
            assert south.get(f"{place}/versions/{sha256(second)}").content == second
            flagged = south.get("/api/quality/duplicates", params={"study": study}).json()["duplicates"]
            assert [one["sha256"] for one in flagged] == [sha256(second)]
            with stack.client("north") as north:
                assert north.get(f"{place}/versions").status_code == 404
                assert north.get("/api/quality/duplicates", params={"study": study}).json()["duplicates"] == []
                assert north.get("/api/quality/warnings", params={"study": study}).json()["instances"] == []
    finally:
        lightbox(stack, "tenant", "set", "south", "--duplicates", "keep-first")


def send_until_refused(client: httpx.Client, file: bytes, study: str, series: str) -> httpx.Response:
    """Sends the file once the gateway knows the new policy: a probe of its own is refused first."""
    for _ in range(60):
        uid = new_uid()
        probes = [make_instance(study=study, series=series, uid=uid, note=note) for note in ("a", "b")]
        if send(client, *probes).json().get("00081198"):
            return send(client, file)
        time.sleep(0.5)
    pytest.fail("the policy did not come to the gateway")


def test_a_pack_that_was_never_announced_is_found(stack: SystemStack) -> None:
    """What a crash kept from being indexed comes back by one command."""
    study = new_uid()
    with stack.client("north") as north:
        assert send(north, make_instance(study=study)).status_code == 200
        wait_for_study(north, study)
    s3 = _s3(stack)
    (source,) = s3.list_objects_v2(Bucket=bucket_name("lightbox", "north"), Prefix=f"packs/{study}/")["Contents"]
    south = bucket_name("lightbox", "south")
    s3.copy_object(
        Bucket=south, Key=source["Key"], CopySource={"Bucket": bucket_name("lightbox", "north"), "Key": source["Key"]}
    )
    (report,) = lightbox(stack, "reconcile", "south", "--grace", "0")["tenants"]
    assert source["Key"] in report["announced"]
    with stack.client("south") as client:
        wait_for_study(client, study)
    s3.delete_object(Bucket=south, Key=source["Key"])
    lost = run_lightbox(stack.folder, "reconcile", "south", "--grace", "0")
    assert lost.returncode == 1
    assert f"lost: {source['Key']}" in lost.stdout
    s3.copy_object(
        Bucket=south, Key=source["Key"], CopySource={"Bucket": bucket_name("lightbox", "north"), "Key": source["Key"]}
    )


def _s3(stack: SystemStack) -> Any:
    credentials = load_credentials(stack.home)
    return boto3.client(
        "s3",
        endpoint_url=addresses(read_json(stack.home.ports_file)).s3_endpoint,
        region_name="us-east-1",
        aws_access_key_id=credentials.s3_access_key,
        aws_secret_access_key=credentials.s3_secret_key,
    )
