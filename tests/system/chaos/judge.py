"""Compares the ledger with what each hospital can retrieve, and with every copy that the catalog names."""

import asyncio
import hashlib
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import asyncpg
import boto3
import httpx

from deploy.local.credentials import Credentials
from libs.dicom.part10 import read_file_meta
from libs.tenancy import bucket_name
from tests.services.dicomweb.parts import parts_of
from tests.support.backing import BUCKET_PREFIX
from tests.support.ledger import Entry, Sent, data_set_hash

_MANY: Final = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_ONE: Final = "application/dicom; transfer-syntax=*"
_PATIENCE: Final = 60.0
_AT_ONCE: Final = 4
_COPIES: Final = """
    SELECT i.sop_uid, encode(i.sha256, 'hex') AS file, p.key, i.byte_offset, i.byte_length
    FROM instances i JOIN packs p ON (p.tenant_id, p.id) = (i.tenant_id, i.pack_key)
    WHERE i.tenant_id = $1 AND i.sop_uid = ANY($2)
    UNION ALL
    SELECT v.sop_uid, encode(v.sha256, 'hex'), p.key, v.byte_offset, v.byte_length
    FROM instance_versions v JOIN packs p ON (p.tenant_id, p.id) = (v.tenant_id, v.pack_key)
    WHERE v.tenant_id = $1 AND v.sop_uid = ANY($2)
"""


class Reader(Protocol):
    """Where to read, and as whom."""

    url: str
    postgres_port: int
    s3_endpoint: str
    credentials: Credentials

    def token(self, tenant: str) -> str:
        """An access token of the tenant that is good for a minute yet."""


@dataclass
class Findings:
    """What is not as it must be, in words.

    Attributes:
        lost: acknowledged, and not to be had.
        doubled: there more than once.
        changed: other bytes than were sent, or than came first.
        strayed: in the wrong tenant.
    """

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    strayed: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.lost or self.doubled or self.changed or self.strayed)

    def __iadd__(self, other: "Findings") -> "Findings":
        for name in vars(self):
            getattr(self, name).extend(getattr(other, name))
        return self

    def __str__(self) -> str:
        return "; ".join(f"{name}: {', '.join(found)}" for name, found in vars(self).items() if found)


class NotSettled(Exception):
    """What was acknowledged does not appear in time, or nobody answers; the text says what."""


class Judge:
    """Reads as the hospitals' users do.

    Arguments:
        reader: where, and as whom.
        sent: what was sent.
        tenants: the two hospitals.
    """

    def __init__(self, reader: Reader, sent: Sent, tenants: tuple[str, str]) -> None:
        self._reader = reader
        self._sent = sent
        self._tenants = tenants
        self._http = httpx.Client(base_url=reader.url, timeout=30)
        self._s3: Any = boto3.client(
            "s3",
            endpoint_url=reader.s3_endpoint,
            region_name="us-east-1",
            aws_access_key_id=reader.credentials.s3_access_key,
            aws_secret_access_key=reader.credentials.s3_secret_key,
        )

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()
        self._s3.close()

    def await_listed(self, entries: Sequence[Entry], deadline: float) -> None:
        """Waits until a search finds all that was acknowledged.

        Arguments:
            entries: the acknowledgements.
            deadline: when to give up, by the monotonic clock.

        Raises:
            NotSettled: it takes too long.
        """
        for (tenant, study), theirs in _by_study(entries).items():
            wanted = {entry.instance for entry in theirs}
            while missing := wanted - set(self.listed(tenant, study)):
                if time.monotonic() > deadline:
                    raise NotSettled(f"{tenant} does not show {len(missing)} of {len(wanted)} instances of {study}")
                time.sleep(0.1)

    def listed(self, tenant: str, study: str) -> list[str]:
        """The SOP Instance UIDs that a search finds in a study, repeated ones among them."""
        answer = self._get(tenant, f"/dicom-web/studies/{study}/instances?limit=1000", "application/dicom+json")
        return [row["00080018"]["Value"][0] for row in answer.json()] if answer.status_code == 200 else []

    def examine(self, entries: Sequence[Entry]) -> Findings:
        """Whether all that was acknowledged is there: with its bytes, once, and in its tenant only.

        Raises:
            NotSettled: nobody answers.
        """
        findings = Findings()
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for found in pool.map(self._examine_study, _by_study(entries).values()):
                findings += found
        return findings

    def examine_own(self, tenant: str, study: str) -> Findings:
        """Whether a study that only this tenant has is one that does not exist for the other."""
        (other,) = set(self._tenants) - {tenant}
        answer = self._get(other, f"/dicom-web/studies/{study}", _MANY)
        if answer.status_code != 404 or self.listed(other, study):
            return Findings(strayed=[f"{other} can see study {study} of {tenant}"])
        return Findings()

    def examine_singly(self, entries: Iterable[Entry]) -> Findings:
        """Whether each acknowledged instance can be had by its own address."""
        findings = Findings()
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for found in pool.map(self._examine_one, {(e.tenant, e.instance): e for e in entries}.values()):
                findings += found
        return findings

    def examine_record(self, tenant: str) -> Findings:
        """Whether the tenant's audit record is the unbroken chain that it was."""
        answer = self._get(tenant, "/api/audit/verify", "application/json")
        verdict = answer.json() if answer.status_code == 200 else {}
        whole = bool(verdict.get("records")) and verdict.get("broken_at") is None
        return Findings() if whole else Findings(changed=[f"the audit record of {tenant}: {answer.text[:200]}"])

    def studies(self, tenant: str, patient: str) -> dict[str, int]:
        """All studies of a patient, and how many instances each says it has."""
        found: dict[str, int] = {}
        while True:
            query = f"/dicom-web/studies?PatientID={patient}&limit=200&offset={len(found)}&includefield=00201208"
            answer = self._get(tenant, query, "application/dicom+json")
            rows = answer.json() if answer.status_code == 200 else []
            found |= {row["0020000D"]["Value"][0]: row["00201208"]["Value"][0] for row in rows}
            if len(rows) < 200:
                return found

    def _examine_one(self, entry: Entry) -> Findings:
        findings = Findings()
        place = f"/dicom-web/studies/{entry.study}/series/{entry.series}/instances/{entry.instance}"
        answer = self._get(entry.tenant, place, _ONE)
        if answer.status_code != 200:
            findings.lost.append(f"{entry.tenant} {entry.instance}: HTTP {answer.status_code}")
        else:
            self._judge_bytes(findings, entry.tenant, entry.instance, answer.content)
        return findings

    def _examine_study(self, entries: Sequence[Entry]) -> Findings:
        """The entries of one tenant and study."""
        findings = Findings()
        tenant, study = entries[0].tenant, entries[0].study
        listed = self.listed(tenant, study)
        findings.doubled += [f"{tenant} lists {uid} {n} times" for uid, n in Counter(listed).items() if n > 1]
        answer = self._get(tenant, f"/dicom-web/studies/{study}", _MANY)
        parts = [content for _, content in parts_of(answer)] if answer.status_code == 200 else []
        primary: dict[str, bytes] = {}
        for content in parts:
            instance = read_file_meta(content).sop_instance_uid
            if instance in primary:
                findings.doubled.append(f"{tenant} sends {instance} twice")
            primary[instance] = content
            self._judge_bytes(findings, tenant, instance, content)
        for instance in set(listed) ^ set(primary):
            findings.lost.append(f"{tenant} {'lists' if instance in listed else 'sends'} {instance} only")
        copies = self._copies(tenant, {*primary, *(entry.instance for entry in entries)})
        for instance, kept in copies.items():
            hashes = Counter(data_set_hash(content) for content in kept)
            findings.doubled += [f"{tenant} keeps the same bytes of {instance} twice" for n in hashes.values() if n > 1]
        first: dict[str, Entry] = {}
        for entry in entries:
            first.setdefault(entry.instance, entry)
            if entry.data_set not in {data_set_hash(content) for content in copies.get(entry.instance, [])}:
                findings.lost.append(f"{tenant} {entry.instance}")
        for instance, entry in first.items():
            if entry.by_cloud and instance in primary and data_set_hash(primary[instance]) != entry.data_set:
                findings.changed.append(f"{tenant} {instance} is not what was acknowledged first")
            if entry.file and entry.file not in {hashlib.sha256(c).hexdigest() for c in copies.get(instance, [])}:
                findings.changed.append(f"{tenant} {instance} is another file than was acknowledged")
        return findings

    def _judge_bytes(self, findings: Findings, tenant: str, instance: str, content: bytes) -> None:
        (other,) = set(self._tenants) - {tenant}
        found = data_set_hash(content)
        if found in self._sent.hashes(tenant, instance):
            return
        if found in self._sent.hashes(other, instance) or not self._sent.hashes(tenant, instance):
            findings.strayed.append(f"{tenant} {instance}")
        else:
            findings.changed.append(f"{tenant} {instance}")

    def _copies(self, tenant: str, instances: set[str]) -> dict[str, list[bytes]]:
        """Every copy that the catalog names: the instance and its versions, each with the bytes its SHA-256 names."""
        found: dict[str, list[bytes]] = defaultdict(list)
        for row in asyncio.run(self._rows(tenant, list(instances))):
            span = f"bytes={row['byte_offset']}-{row['byte_offset'] + row['byte_length'] - 1}"
            bucket = bucket_name(BUCKET_PREFIX, tenant)
            content = self._s3.get_object(Bucket=bucket, Key=row["key"], Range=span)["Body"].read()
            if hashlib.sha256(content).hexdigest() == row["file"]:
                found[row["sop_uid"]].append(content)
        return found

    async def _rows(self, tenant: str, instances: list[str]) -> list[Any]:
        connection = await asyncpg.connect(
            host="127.0.0.1",
            port=self._reader.postgres_port,
            user="postgres",
            password=self._reader.credentials.database_superuser,
            database="lightbox",
        )
        try:
            return list(await connection.fetch(_COPIES, tenant, instances))
        finally:
            await connection.close()

    def _get(self, tenant: str, path: str, accept: str) -> httpx.Response:
        """Asks until somebody answers.

        Raises:
            NotSettled: nobody does for a minute.
        """
        deadline = time.monotonic() + _PATIENCE
        while True:
            why = ""
            try:
                headers = {"Authorization": f"Bearer {self._reader.token(tenant)}", "Accept": accept}
                answer = self._http.get(path, headers=headers)
                if answer.status_code in (200, 204, 404):
                    return answer
                why = f"HTTP {answer.status_code} {answer.text[:200]}"
            except (httpx.HTTPError, OSError) as error:
                why = repr(error)
            if time.monotonic() > deadline:
                raise NotSettled(f"{path} of {tenant}: {why}")
            time.sleep(0.2)


def _by_study(entries: Iterable[Entry]) -> dict[tuple[str, str], list[Entry]]:
    found: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for entry in entries:
        found[entry.tenant, entry.study].append(entry)
    return found
