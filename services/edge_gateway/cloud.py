"""The cloud as the edge sees it: an access token, and STOW-RS of batches that stream from the spool."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import httpx
import orjson
from pydantic import SecretStr

from services.edge_gateway.domain import Answer, Instance
from services.edge_gateway.errors import BatchRefused, CloudAway, SpoolDamaged
from services.edge_gateway.spool import Spool

_SLICE: Final = 1 << 20
_LARGEST_ANSWER: Final = 16 << 20
_LONGEST_PAUSE_ASKED: Final = 600.0
_TOKEN_MARGIN: Final = 30.0
_ANSWERS: Final = frozenset({200, 202, 409})
# The request as such is at fault, so that half of it may pass; anything else is the line's or our own.
_REFUSALS: Final = frozenset({400, 409, 411, 413, 414, 415, 422})

_REFERENCED_SOP_SEQUENCE: Final = "00081199"
_FAILED_SOP_SEQUENCE: Final = "00081198"
_OTHER_FAILURES_SEQUENCE: Final = "0008119A"
_REFERENCED_SOP_INSTANCE_UID: Final = "00081155"
_FAILURE_REASON: Final = "00081197"
_PRIVATE_CREATOR: Final = "00090010"
_SHA256: Final = "00091001"
_CREATOR: Final = "LIGHTBOX"


class Credentials:
    """The OAuth2 client credentials of the edge (RFC 6749 section 4.4), and the token they gave.

    Arguments:
        http: the client to ask with.
        url: the token endpoint.
        client_id: the client.
        client_secret: its secret.
    """

    def __init__(self, http: httpx.AsyncClient, url: str, client_id: str, client_secret: SecretStr) -> None:
        self._http = http
        self._url = url
        self._client_id = client_id
        self._client_secret = client_secret
        self._lock = asyncio.Lock()
        self._token = ""
        self._good_until = 0.0

    async def token(self) -> str:
        """A token that is good for a while yet.

        Raises:
            CloudAway: none is to be had now.
        """
        async with self._lock:
            if time.monotonic() >= self._good_until:
                await self._fetch()
            return self._token

    def forget(self, token: str) -> None:
        """The cloud did not take this token."""
        if token == self._token:
            self._good_until = 0.0

    async def _fetch(self) -> None:
        try:
            response = await self._http.post(
                self._url,
                data={"grant_type": "client_credentials", "scope": "dicom:write"},
                auth=httpx.BasicAuth(self._client_id, self._client_secret.get_secret_value()),
            )
        except httpx.HTTPError as error:
            raise _away(error) from error
        if response.status_code != 200:
            raise CloudAway(
                f"no access token for {self._client_id}: HTTP {response.status_code}",
                retry_after=retry_after(response.headers),
            )
        try:
            body = response.json()
            self._token = str(body["access_token"])
            lifetime = float(body.get("expires_in", 600))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CloudAway("the token endpoint's answer can't be understood") from error
        self._good_until = time.monotonic() + max(0.0, lifetime - _TOKEN_MARGIN)


class StowClient:
    """Sends batches (PS3.18 section 10.5).

    Arguments:
        http: the client to send with.
        url: the studies resource.
        credentials: where tokens come from.
        spool: where the files are.
    """

    def __init__(self, http: httpx.AsyncClient, url: str, credentials: Credentials, spool: Spool) -> None:
        self._http = http
        self._url = url
        self._credentials = credentials
        self._spool = spool

    async def store(self, batch: Sequence[Instance]) -> Answer:
        """Sends a batch and reads what the cloud says of each instance.

        Raises:
            CloudAway: the line, the cloud or the credentials; all of it goes again later.
            BatchRefused: the request as such was refused.
            SpoolDamaged: a file is missing or is not what was written; nothing was sent as a whole.
        """
        token = await self._credentials.token()
        status, headers, body = await self._post(batch, token)
        if status == 401:
            self._credentials.forget(token)
            token = await self._credentials.token()
            status, headers, body = await self._post(batch, token)
        if status in _ANSWERS:
            answer = parse_answer(body)
            if answer is not None:
                return answer
        if status in _REFUSALS:
            raise BatchRefused(f"HTTP {status}{_detail(body)}")
        if status in _ANSWERS:
            raise CloudAway(f"HTTP {status} with an answer that can't be understood")
        raise CloudAway(f"HTTP {status}{_detail(body)}", retry_after=retry_after(headers))

    async def _post(self, batch: Sequence[Instance], token: str) -> tuple[int, httpx.Headers, bytes]:
        boundary = uuid4().hex
        heads, end = _delimiters(boundary, len(batch))
        length = sum(map(len, heads)) + sum(instance.size for instance in batch) + len(end)
        request = self._http.build_request(
            "POST",
            self._url,
            content=_stream(self._spool, batch, heads, end),
            headers={
                "Authorization": f"Bearer {token}",
                "Accept": "application/dicom+json",
                "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
                "Content-Length": str(length),
            },
        )
        try:
            response = await self._http.send(request, stream=True)
            try:
                body = bytearray()
                async for piece in response.aiter_bytes():
                    body += piece
                    if len(body) > _LARGEST_ANSWER:
                        raise CloudAway("the cloud's answer is too long")
            finally:
                await response.aclose()
        except httpx.HTTPError as error:
            raise _away(error) from error
        return response.status_code, response.headers, bytes(body)


def _delimiters(boundary: str, parts: int) -> tuple[list[bytes], bytes]:
    """What precedes each part, and what ends the body (RFC 2046 section 5.1.1)."""
    head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    heads = [head] + [b"\r\n" + head] * (parts - 1)
    return heads, f"\r\n--{boundary}--\r\n".encode()


async def _stream(spool: Spool, batch: Sequence[Instance], heads: Sequence[bytes], end: bytes) -> AsyncIterator[bytes]:
    """The body. A file that is not what the journal says breaks it off, so that the cloud takes none of it."""
    for instance, head in zip(batch, heads, strict=True):
        yield head
        async for piece in _pieces(spool.path(instance.file), instance):
            yield piece
    yield end


async def _pieces(path: Path, instance: Instance) -> AsyncIterator[bytes]:
    digest = hashlib.sha256()
    sent = 0
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(instance.offset)
            while piece := await asyncio.to_thread(file.read, min(_SLICE, instance.size - sent)):
                digest.update(piece)
                sent += len(piece)
                if sent == instance.size and digest.hexdigest() != instance.sha256:
                    raise SpoolDamaged(instance.sequence, "the spooled file is not what was written")
                yield piece
    except OSError as error:
        raise SpoolDamaged(instance.sequence, f"the spooled file can't be read: {error.strerror}") from error
    if sent != instance.size:
        raise SpoolDamaged(instance.sequence, "the spooled file is shorter than what was written")


def parse_answer(body: bytes) -> Answer | None:
    """Reads a store instances response (PS3.18 table 10.5.3-1) in DICOM JSON; None when it is none."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if isinstance(document, list) and len(document) == 1:
        document = document[0]
    if not isinstance(document, dict):
        return None
    if not {_REFERENCED_SOP_SEQUENCE, _FAILED_SOP_SEQUENCE, _OTHER_FAILURES_SEQUENCE} & set(document):
        return None
    stored: dict[str, str] = {}
    failed: dict[str, int] = {}
    for item in _items(document, _REFERENCED_SOP_SEQUENCE):
        uid = _first(item, _REFERENCED_SOP_INSTANCE_UID)
        if isinstance(uid, str):
            digest = _first(item, _SHA256) if _first(item, _PRIVATE_CREATOR) == _CREATOR else ""
            stored[uid] = digest if isinstance(digest, str) else ""
    for item in _items(document, _FAILED_SOP_SEQUENCE):
        uid, reason = _first(item, _REFERENCED_SOP_INSTANCE_UID), _first(item, _FAILURE_REASON)
        if isinstance(uid, str):
            failed[uid] = reason if isinstance(reason, int) else 0x0110
    return Answer(stored, failed)


def _items(document: Mapping[str, Any], tag: str) -> list[Mapping[str, Any]]:
    element = document.get(tag)
    value = element.get("Value") if isinstance(element, dict) else None
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _first(item: Mapping[str, Any], tag: str) -> object:
    element = item.get(tag)
    value = element.get("Value") if isinstance(element, dict) else None
    return value[0] if isinstance(value, list) and value else None


def _detail(body: bytes) -> str:
    """What a problem document (RFC 9457) says, for the log and the status."""
    try:
        document = orjson.loads(body[:10_000])
    except orjson.JSONDecodeError:
        return ""
    if not isinstance(document, dict):
        return ""
    words = [str(document[key]) for key in ("title", "detail") if document.get(key)]
    return f": {' - '.join(words)[:300]}" if words else ""


def _away(error: httpx.HTTPError) -> CloudAway:
    unreachable = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
    words = str(error) or type(error).__name__
    return CloudAway(f"the cloud can't be reached: {words}", unreachable=unreachable)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of a Retry-After header (RFC 9110 section 10.2.3), at most ten minutes; None without one."""
    value = headers.get("retry-after", "").strip()
    if value.isdigit():
        return min(float(value), _LONGEST_PAUSE_ASKED)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return min(max(0.0, (moment - datetime.now(UTC)).total_seconds()), _LONGEST_PAUSE_ASKED)
