"""If these fail, somebody sends into another clinic's archive, or learns what another clinic has registered."""

import json
from collections.abc import Callable
from hashlib import sha256

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from deploy.local.certificates import Authority
from libs.events import AUDIT_RECORDED
from libs.tenancy import SYSTEM_TENANT, create_engine, tenant_transaction
from tests.services.identity.conftest import Identity
from tests.support.backing import Backing, new_tenant_id


@pytest.fixture(scope="module")
def issued(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Makes a client certificate and gives it as PEM."""
    folder = tmp_path_factory.mktemp("ca")
    authority = Authority(folder, "Test authority")
    return lambda name: authority.issue(name, folder / name).certificate.read_text()


def fingerprint(pem: str) -> bytes:
    return sha256(x509.load_pem_x509_certificate(pem.encode()).public_bytes(Encoding.DER)).digest()


async def found(backing: Backing, pem: str, title: str, role: str = "ingest_gateway") -> list[str]:
    """Which tenants' nodes the door finds for a certificate and a called AE title."""
    engine = create_engine(backing.database_url(role))
    try:
        async with tenant_transaction(engine, SYSTEM_TENANT) as connection:
            rows = await connection.execute(
                text("SELECT tenant FROM find_node(:fingerprint, :title)"),
                {"fingerprint": fingerprint(pem), "title": title},
            )
            return list(rows.scalars())
    finally:
        await engine.dispose()


async def test_a_node_is_found_by_certificate_and_title_together(
    identity: Identity, backing: Backing, tenant: str, issued: Callable[[str], str]
) -> None:
    pem, other = issued("ct-1"), issued("ct-2")
    body = {"name": "ct-1", "certificates": [pem], "calling_ae_titles": ["CT1 "], "networks": ["192.0.2.0/24"]}
    made = (await identity.call("POST", f"/tenants/{tenant}/nodes", body)).raise_for_status().json()
    title = made["called_ae_title"]
    assert title == tenant.upper()[:16]
    assert made["calling_ae_titles"] == ["CT1"]
    assert made["certificates"][0]["sha256"] == fingerprint(pem).hex()
    assert "ct-1" in made["certificates"][0]["subject"]
    assert made["certificates"][0]["not_after"]
    assert await found(backing, pem, title) == [tenant]
    assert await found(backing, pem, title.lower()) == []
    assert await found(backing, other, title) == []
    rolled = {"certificates": [pem, fingerprint(other).hex(":")]}
    (await identity.call("PATCH", f"/tenants/{tenant}/nodes/ct-1", rolled)).raise_for_status()
    assert await found(backing, pem, title) == await found(backing, other, title) == [tenant]
    only_new = {"certificates": [other]}
    (await identity.call("PATCH", f"/tenants/{tenant}/nodes/ct-1", only_new)).raise_for_status()
    assert (await found(backing, pem, title), await found(backing, other, title)) == ([], [tenant])
    assert (await identity.call("DELETE", f"/tenants/{tenant}/nodes/ct-1")).status_code == 204
    assert await found(backing, other, title) == []
    recorded = [json.loads(e)["data"] for e in await identity.events(AUDIT_RECORDED.name, tenant, 4)]
    assert [record["action"] for record in recorded] == ["create", "change", "change", "delete"]
    assert fingerprint(pem).hex() in recorded[0]["detail"]


async def test_one_certificate_serves_two_clinics_by_different_titles_only(
    identity: Identity, backing: Backing, tenant_pair: tuple[str, str], issued: Callable[[str], str]
) -> None:
    """A mobile scanner: neither clinic hears of the other, and the title says whose images these are."""
    pem = issued("mobile")
    titles = []
    for tenant in tenant_pair:
        await identity.add_user(tenant, "boss", ("tenant-administrator",))
        boss = await identity.token_of(tenant, "boss")
        made = await identity.call("POST", f"/tenants/{tenant}/nodes", {"name": "van", "certificates": [pem]}, boss)
        titles.append(made.raise_for_status().json()["called_ae_title"])
    assert titles[0] != titles[1]
    for tenant, title in zip(tenant_pair, titles, strict=True):
        assert await found(backing, pem, title) == [tenant]


async def test_an_administrator_cannot_tell_a_title_that_is_taken_from_one_that_is_free(
    identity: Identity, backing: Backing, tenant_pair: tuple[str, str], issued: Callable[[str], str]
) -> None:
    mine, other = tenant_pair
    pem = issued("spy")
    theirs = await identity.call("POST", f"/tenants/{other}/nodes", {"name": "ct", "certificates": [pem]})
    taken, free = theirs.raise_for_status().json()["called_ae_title"], "NOBODY-HAS-IT"
    await identity.add_user(mine, "boss", ("tenant-administrator",))
    boss = await identity.token_of(mine, "boss")
    answers = []
    for title in (taken, free):
        body = {"name": "ct", "certificates": [pem], "called_ae_title": title}
        answer = await identity.call("POST", f"/tenants/{mine}/nodes", body, boss)
        answers.append((answer.status_code, answer.text.replace(title, "TITLE")))
    assert answers[0] == answers[1]
    assert answers[0][0] == 400
    body = {"name": "ct", "certificates": [pem], "called_ae_title": taken}
    assert (await identity.call("POST", f"/tenants/{mine}/nodes", body)).status_code == 409  # operators may know
    assert await found(backing, pem, taken) == [other]
    handed_out = f"OP-{mine[2:10]}"
    body["called_ae_title"] = handed_out
    (await identity.call("POST", f"/tenants/{mine}/nodes", body)).raise_for_status()
    assert await found(backing, pem, handed_out) == [mine]


async def test_one_certificate_is_one_node_under_one_title(
    identity: Identity, tenant: str, issued: Callable[[str], str]
) -> None:
    """Two nodes with the same certificate would make it a matter of chance whose lists hold."""
    pem = issued("ct")
    (await identity.call("POST", f"/tenants/{tenant}/nodes", {"name": "a", "certificates": [pem]})).raise_for_status()
    second = await identity.call("POST", f"/tenants/{tenant}/nodes", {"name": "b", "certificates": [pem]})
    assert (second.status_code, "“a”" in second.text) == (409, True)
    again = await identity.call("POST", f"/tenants/{tenant}/nodes", {"name": "a", "certificates": [issued("x")]})
    assert again.status_code == 409
    listed = (await identity.call("GET", f"/tenants/{tenant}/nodes")).json()["nodes"]
    assert [node["name"] for node in listed] == ["a"]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"certificates": []}, "certificates"),
        ({"certificates": ["abc"]}, "PEM"),
        ({"certificates": ["-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"]}, "PEM"),
        ({"certificates": ["-----BEGIN PRIVATE KEY-----"]}, "stays with the device"),
        ({"networks": ["192.0.2.1/24"]}, "network"),
        ({"networks": ["everywhere"]}, "network"),
        ({"calling_ae_titles": ["SEVENTEEN-LETTERS"]}, "AE title"),
        ({"calling_ae_titles": ["A\\B"]}, "AE title"),
        ({"called_ae_title": "A\x00B"}, "AE title"),
        ({"name": "CT 1"}, "lower-case"),
        ({"surplus": 1}, "surplus"),
    ],
    ids=str,
)
async def test_what_breaks_a_rule_is_refused_in_words(
    identity: Identity, tenant: str, wrong: dict[str, object], words: str
) -> None:
    body = {"name": "ct", "certificates": ["ab" * 32], **wrong}
    answer = await identity.call("POST", f"/tenants/{tenant}/nodes", body)
    assert answer.status_code in (400, 422)
    assert words in answer.text
    assert (await identity.call("GET", f"/tenants/{tenant}/nodes")).json()["nodes"] == []


async def test_the_door_asks_for_one_pair_and_sees_nothing_else(identity: Identity, backing: Backing) -> None:
    """The gateway's role can't list nodes, and no other service's role can ask."""
    for role, statement in (
        ("ingest_gateway", "SELECT * FROM nodes"),
        ("ingest_gateway", "SELECT * FROM node_certificates"),
        ("ingest_gateway", "SELECT * FROM called_ae_titles"),
        ("dicomweb", "SELECT * FROM find_node('', '')"),
        ("portal", "SELECT * FROM find_node('', '')"),
    ):
        engine = create_engine(backing.database_url(role))
        try:
            with pytest.raises(DBAPIError, match="permission denied"):
                async with tenant_transaction(engine, SYSTEM_TENANT) as connection:
                    await connection.execute(text(statement))
        finally:
            await engine.dispose()


async def test_long_and_taken_names_still_get_a_title(identity: Identity, issued: Callable[[str], str]) -> None:
    """A tenant's identifier may be longer than an AE title, or its capitals be held by somebody else."""
    stem = new_tenant_id()
    long = f"{stem}-of-the-north"
    for name in (stem, long):
        (await identity.call("POST", "/tenants", {"id": name, "name": name})).raise_for_status()
    body = {"name": "ct", "certificates": [issued("ct")]}
    claimed = await identity.call("POST", f"/tenants/{long}/nodes", {**body, "called_ae_title": stem.upper()})
    claimed.raise_for_status()
    made = (await identity.call("POST", f"/tenants/{stem}/nodes", body)).raise_for_status().json()
    assert made["called_ae_title"].startswith(stem.upper()[:11])
    assert len(made["called_ae_title"]) <= 16
    assert made["called_ae_title"] != stem.upper()
