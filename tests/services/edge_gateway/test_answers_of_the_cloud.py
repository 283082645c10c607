"""Whatever the cloud answers, an instance leaves the spool only when its UID and SHA-256 came back."""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.services.edge_gateway.edge_process import EdgeProcess, wait_for
from tests.services.edge_gateway.instances import write_series
from tests.services.edge_gateway.sender import storescu
from tests.services.edge_gateway.stow_server import Parts, Reply, StowServer, answer, failure, item


def times(count: int, reply: Callable[[StowServer, Parts], Reply]) -> Callable[[StowServer, Parts], Reply | None]:
    """Answers so for the first requests, then stores as usual."""
    left = count

    def behave(server: StowServer, parts: Parts) -> Reply | None:
        nonlocal left
        left -= 1
        return reply(server, parts) if left >= 0 else None

    return behave


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param((503, {"Retry-After": "1"}, b"{}"), id="unavailable"),
        pytest.param((502, {}, b"<html>bad gateway</html>"), id="bad gateway"),
        pytest.param((200, {"Content-Type": "text/html"}, b"<html>welcome to the hotel</html>"), id="garbage"),
        pytest.param((200, {}, b"[]"), id="empty list"),
        pytest.param((200, {}, b'{"00081199": {"Value": [{"00081155": 7}]}}'), id="nonsense"),
        pytest.param((429, {}, b""), id="too many requests"),
        pytest.param((404, {}, b""), id="not found"),
    ],
)
def test_instances_wait_until_the_cloud_is_well(
    edge: EdgeProcess, cloud: StowServer, tmp_path: Path, reply: Reply
) -> None:
    """A proxy's error page must not cost a study."""
    cloud.behave = times(2, lambda *_: reply)
    files = write_series(tmp_path / "in", 4)
    assert storescu(edge, files) == 0
    wait_for(lambda: len(cloud.uids()) == 4 and edge.is_empty())
    assert edge.status()["refused"]["instances"] == 0
    assert edge.status()["last_error"]


def test_the_pause_that_the_cloud_asks_for_is_kept(edge: EdgeProcess, cloud: StowServer, tmp_path: Path) -> None:
    """An overloaded cloud recovers only if its senders do as it says."""
    moments: list[float] = []

    def busy(_: StowServer, __: Parts) -> Reply:
        moments.append(time.monotonic())
        return 503, {"Retry-After": "2"}, b"{}"

    cloud.behave = times(1, busy)
    assert storescu(edge, write_series(tmp_path / "in", 1)) == 0
    wait_for(lambda: len(cloud.uids()) == 1)
    assert time.monotonic() - moments[0] >= 2


def test_a_batch_that_is_too_large_goes_in_halves(edge: EdgeProcess, cloud: StowServer, tmp_path: Path) -> None:
    """A limit somewhere on the way must not stop a clinic's images for good."""

    def at_most_three(server: StowServer, parts: Parts) -> Reply | None:
        return (413, {}, b"{}") if len(parts) > 3 else None

    cloud.behave = at_most_three
    files = write_series(tmp_path / "in", 10)
    assert storescu(edge, files) == 0
    wait_for(lambda: len(cloud.uids()) == 10 and edge.is_empty())
    assert edge.status()["refused"]["instances"] == 0


def test_one_instance_that_spoils_every_request_is_found(edge: EdgeProcess, cloud: StowServer, tmp_path: Path) -> None:
    """Ninety-nine good images must not wait for a bad one."""
    files = write_series(tmp_path / "in", 9)
    culprit = files[4].stem

    def spoiled(server: StowServer, parts: Parts) -> Reply | None:
        if culprit in {uid for uid, _ in parts}:
            return 400, {}, b'{"title": "The request can\'t be understood", "detail": "part 5"}'
        return None

    cloud.behave = spoiled
    assert storescu(edge, files) == 0
    wait_for(lambda: len(cloud.uids()) == 8 and edge.is_empty())
    status = edge.status()
    assert status["refused"]["instances"] == 1
    assert status["refused_instances"][0]["sop_instance_uid"] == culprit
    assert "can't be understood" in status["refused_instances"][0]["reason"]
    assert len(edge.kept()) == 1


def test_partial_failures_are_told_apart(
    make_edge: Callable[..., EdgeProcess], cloud: StowServer, tmp_path: Path
) -> None:
    """What may pass goes again by itself; what can't waits for a person, with the reason, and is never dropped."""
    edge = make_edge()
    files = write_series(tmp_path / "in", 5)
    full, bad = files[1].stem, files[3].stem

    def partly(server: StowServer, parts: Parts) -> Reply:
        good = [(uid, file) for uid, file in parts if uid not in (full, bad)]
        server.store(good)
        stored = [item(uid, hashlib.sha256(file).hexdigest()) for uid, file in good]
        failed = [failure(uid, 0xA700 if uid == full else 0xC000) for uid, _ in parts if uid in (full, bad)]
        return answer(stored, failed)

    cloud.behave = times(2, partly)
    assert storescu(edge, files) == 0
    wait_for(lambda: len(cloud.uids()) == 4 and edge.is_empty())
    refused = edge.status()["refused_instances"]
    assert [one["sop_instance_uid"] for one in refused] == [bad]
    assert "C000" in refused[0]["reason"]
    edge.stop()
    edge.start()
    assert edge.status()["refused"]["instances"] == 1
    assert edge.get("/retry", "POST") == {"instances": 1}
    wait_for(lambda: bad in cloud.uids() and edge.kept() == [])
    assert edge.status()["refused"]["instances"] == 0


def test_another_hash_or_none_proves_nothing(edge: EdgeProcess, cloud: StowServer, tmp_path: Path) -> None:
    """A truncated upload that the cloud took for whole would be lost if the edge believed a bare 200."""

    def wrong(_: StowServer, parts: Parts) -> Reply:
        return answer([item(uid, "0" * 64 if n % 2 else "") for n, (uid, _) in enumerate(parts)], [])

    cloud.behave = times(2, wrong)
    files = write_series(tmp_path / "in", 4)
    assert storescu(edge, files) == 0
    wait_for(lambda: len(cloud.requests) >= 1)
    assert len(edge.kept()) == 4
    wait_for(lambda: len(cloud.uids()) == 4 and edge.is_empty())


def test_an_expired_token_is_renewed(edge: EdgeProcess, cloud: StowServer, tmp_path: Path) -> None:
    """Tokens end, keys are rotated: the edge must not need a person for that."""
    assert storescu(edge, write_series(tmp_path / "a", 1)) == 0
    wait_for(lambda: len(cloud.uids()) == 1)
    before = cloud.tokens_given
    cloud.tokens.clear()
    assert storescu(edge, write_series(tmp_path / "b", 1)) == 0
    wait_for(lambda: len(cloud.uids()) == 2)
    assert cloud.tokens_given == before + 1
    assert edge.status()["failures"] == 0
