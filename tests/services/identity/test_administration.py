"""If these fail, an administrator reaches into another clinic, or a change goes unrecorded."""

import asyncio
import json
import logging
from typing import Any

import pytest

from libs.events import AUDIT_RECORDED, TENANTS_CHANGED
from tests.services.identity.conftest import BOOTSTRAP, OWN, PASSWORD, Identity
from tests.support.backing import new_tenant_id


async def test_a_new_tenant_is_told_to_the_other_services(identity: Identity) -> None:
    tenant = new_tenant_id()
    made = await identity.call("POST", "/tenants", {"id": tenant, "name": "North Clinic"})
    assert made.status_code == 201
    assert (made.json()["id"], made.json()["name"], made.json()["state"]) == (tenant, "North Clinic", "active")
    assert (await identity.call("POST", "/tenants", {"id": tenant, "name": "Again"})).status_code == 409
    (await identity.call("PATCH", f"/tenants/{tenant}", {"state": "suspended", "name": "N"})).raise_for_status()
    events = [json.loads(event) for event in await identity.events(TENANTS_CHANGED.name, tenant, 2)]
    assert [event["data"]["state"] for event in events] == ["active", "suspended"]
    for _ in range(50):
        if not (left := await identity.sql("SELECT 1 FROM outbox", tenant=tenant)):
            break
        await asyncio.sleep(0.1)
    assert not left
    listed = await identity.call("GET", f"/tenants?after={tenant[:-1]}&limit=1")
    assert listed.json()["tenants"][0]["id"] == tenant
    assert listed.json()["next"] == tenant


async def test_how_a_clinic_stores_duplicates_is_set_told_and_recorded(identity: Identity) -> None:
    """An operator's change must reach the gateway that applies it, and be found in the record afterwards."""
    tenant = new_tenant_id()
    made = await identity.call("POST", "/tenants", {"id": tenant, "name": "North"})
    assert (made.json()["duplicates"], made.json()["requests_at_once"]) == ("keep-first", None)
    for change in ({"duplicates": "refuse", "requests_at_once": 3}, {"requests_at_once": 0}, {"name": "N"}):
        (await identity.call("PATCH", f"/tenants/{tenant}", change)).raise_for_status()
    found = (await identity.call("GET", f"/tenants/{tenant}")).raise_for_status().json()
    assert (found["duplicates"], found["requests_at_once"], found["name"]) == ("refuse", None, "N")
    assert (await identity.call("PATCH", f"/tenants/{tenant}", {"duplicates": "replace"})).status_code in (400, 422)
    assert (await identity.call("PATCH", f"/tenants/{tenant}", {"requests_at_once": 1001})).status_code in (400, 422)
    assert len(await identity.events(TENANTS_CHANGED.name, tenant, 3)) == 3, "made, and two changes of the rules"
    details = [json.loads(e)["data"]["detail"] for e in await identity.events(AUDIT_RECORDED.name, tenant, 4)]
    assert any("duplicates refuse, requests at once 3" in detail for detail in details)


async def test_an_administrator_sees_the_rules_and_does_not_set_them(identity: Identity) -> None:
    """What is refused or kept is agreed between the clinic and who runs the installation."""
    tenant, other = new_tenant_id(), new_tenant_id()
    for one in (tenant, other):
        await identity.call("POST", "/tenants", {"id": one, "name": "x"})
    await identity.add_user(tenant, "ada", ("tenant-administrator",))
    ada = await identity.token_of(tenant, "ada")
    assert (await identity.call("GET", f"/tenants/{tenant}", headers=ada)).json()["duplicates"] == "keep-first"
    assert (await identity.call("GET", f"/tenants/{other}", headers=ada)).status_code == 404
    assert (await identity.call("PATCH", f"/tenants/{tenant}", {"duplicates": "refuse"}, ada)).status_code == 403


@pytest.mark.parametrize("tenant", ["", "a", "North", "nord süd", "-x", "x-", "a" * 33, "a_b", "a/../b"])
async def test_malformed_tenants_are_refused(identity: Identity, tenant: str) -> None:
    assert (await identity.call("POST", "/tenants", {"id": tenant, "name": "x"})).status_code == 400


async def test_the_operators_tenant_stays(identity: Identity) -> None:
    assert (await identity.call("PATCH", "/tenants/system", {"state": "suspended"})).status_code == 409
    assert (await identity.call("POST", "/tenants", {"id": "system", "name": "x"})).status_code == 409


_BODIES: dict[str, Any] = {
    "users": {"name": "mallory", "roles": ["tenant-administrator"]},
    "clients": {"name": "mallory", "scopes": ["dicom:read"]},
    "nodes": {"name": "mallory", "certificates": ["ab" * 32]},
}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/tenants/{}/users", None),
        ("POST", "/tenants/{}/users", _BODIES["users"]),
        ("PATCH", "/tenants/{}/users/anna", {"active": False}),
        ("GET", "/tenants/{}/clients", None),
        ("POST", "/tenants/{}/clients", _BODIES["clients"]),
        ("POST", "/tenants/{}/clients/edge-1/rotate", None),
        ("DELETE", "/tenants/{}/clients/edge-1", None),
        ("GET", "/tenants/{}/nodes", None),
        ("POST", "/tenants/{}/nodes", _BODIES["nodes"]),
        ("PATCH", "/tenants/{}/nodes/ct-1", {"enabled": True}),
        ("DELETE", "/tenants/{}/nodes/ct-1", None),
    ],
)
async def test_another_clinic_does_not_exist_for_an_administrator(
    identity: Identity, tenant_pair: tuple[str, str], method: str, path: str, body: object
) -> None:
    mine, other = tenant_pair
    await identity.add_user(mine, "boss", ("tenant-administrator",))
    await identity.add_user(other)
    await identity.add_client(other)
    theirs = {"name": "ct-1", "certificates": ["cd" * 32], "enabled": False}
    (await identity.call("POST", f"/tenants/{other}/nodes", theirs)).raise_for_status()
    boss = await identity.token_of(mine, "boss")
    before = await _everything(identity, other)
    foreign = await identity.call(method, path.format(other), body, boss)
    missing = await identity.call(method, path.format("t-missing"), body, boss)
    assert foreign.status_code == missing.status_code == 404
    assert foreign.text.replace(other, "X") == missing.text.replace("t-missing", "X")
    assert await _everything(identity, other) == before


async def _everything(identity: Identity, tenant: str) -> list[Any]:
    users = await identity.sql("SELECT * FROM users ORDER BY name", tenant=tenant)
    nodes = await identity.sql("SELECT * FROM nodes ORDER BY name", tenant=tenant)
    return users + nodes + await identity.sql("SELECT * FROM clients ORDER BY name", tenant=tenant)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/tenants", None),
        ("POST", "/tenants", {"id": "t-new", "name": "x"}),
        ("PATCH", "/tenants/{}", {"state": "suspended"}),
        ("POST", "/keys/rotate", None),
    ],
)
async def test_tenants_and_keys_are_the_operators(
    identity: Identity, tenant: str, method: str, path: str, body: object
) -> None:
    await identity.add_user(tenant, "boss", ("tenant-administrator",))
    boss = await identity.token_of(tenant, "boss")
    assert (await identity.call(method, path.format(tenant), body, boss)).status_code == 403
    assert (await identity.call(method, path.format(tenant), body, {"X-Nobody": "1"})).status_code == 401


async def test_readers_administer_nothing(identity: Identity, tenant: str) -> None:
    await identity.add_user(tenant)
    anna = await identity.token_of(tenant)
    for path in (f"/tenants/{tenant}/users", f"/tenants/{tenant}/clients"):
        assert (await identity.call("GET", path, None, anna)).status_code == 403


async def test_an_administrator_makes_and_changes_users_of_the_own_clinic(identity: Identity, tenant: str) -> None:
    await identity.add_user(tenant, "boss", ("tenant-administrator",))
    boss = await identity.token_of(tenant, "boss")
    users = f"/tenants/{tenant}/users"
    made = await identity.call("POST", users, {"name": "berta", "roles": ["viewer", "viewer"]}, boss)
    assert made.status_code == 201
    generated = made.json()["password"]
    assert len(generated) >= 24
    async with identity.browser() as browser:
        assert (await identity.log_in(browser, tenant, "berta", generated)).status_code == 303
    assert (await identity.call("POST", users, {"name": "berta", "roles": ["viewer"]}, boss)).status_code == 409
    changed = await identity.call(
        "PATCH", f"{users}/berta", {"roles": ["radiologist"], "display_name": "Dr. Berta"}, boss
    )
    assert (changed.json()["roles"], changed.json()["display_name"]) == (["radiologist"], "Dr. Berta")
    assert changed.json()["password"] is None
    listed = (await identity.call("GET", users, None, boss)).json()["users"]
    assert [user["name"] for user in listed] == ["berta", "boss"]
    assert generated not in json.dumps(listed)
    for harm in ({"active": False}, {"roles": ["viewer"]}):
        assert (await identity.call("PATCH", f"{users}/boss", harm, boss)).status_code == 409
    for name in ("nobody", "%00", "A"):
        assert (await identity.call("PATCH", f"{users}/{name}", {"active": False}, boss)).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {"name": "x", "roles": ["operator"]},
        {"name": "x", "roles": []},
        {"name": "x", "roles": ["god"]},
        {"name": "X", "roles": ["viewer"]},
        {"name": "a b", "roles": ["viewer"]},
        {"name": "a:b", "roles": ["viewer"]},
        {"name": "x\u0000", "roles": ["viewer"]},
        {"name": "x" * 65, "roles": ["viewer"]},
        {"name": "x", "roles": ["viewer"], "display_name": "a\u0000b"},
        {"name": "x", "roles": ["viewer"], "display_name": "a\r\nSet-Cookie: b"},
        {"name": "x", "roles": ["viewer"], "display_name": "x" * 201},
        {"name": "x", "roles": ["viewer"], "password": "short"},
        {"name": "x", "roles": ["viewer"], "password": "x" * 1025},
        {"name": "x", "roles": ["viewer"], "password": "ä" * 513},
        {"name": "long.user.name", "roles": ["viewer"], "password": "Long.User.Name"},
        {"name": "x", "roles": ["viewer"], "password": "aaaaaaaaaaaa"},
        {"name": "x", "roles": ["viewer"], "admin": True},
        {"name": "x"},
        [],
        "x",
    ],
    ids=lambda body: str(body)[:50],
)
async def test_users_that_break_a_rule_are_refused_in_words(identity: Identity, tenant: str, body: object) -> None:
    answer = await identity.call("POST", f"/tenants/{tenant}/users", body)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"]
    assert not await identity.sql("SELECT 1 FROM users", tenant=tenant)


@pytest.mark.parametrize("scopes", [["tenants:admin"], [], ["everything"]])
async def test_clients_hold_scopes_of_their_tenant_only(identity: Identity, tenant: str, scopes: list[str]) -> None:
    answer = await identity.call("POST", f"/tenants/{tenant}/clients", {"name": "x", "scopes": scopes})
    assert answer.status_code == 400
    system = await identity.call("POST", "/tenants/system/clients", {"name": "x", "scopes": ["dicom:read"]})
    assert system.status_code == 400


async def test_the_cookie_administers_from_our_own_pages_only(identity: Identity, tenant: str) -> None:
    await identity.add_user(tenant, "boss", ("tenant-administrator",))
    async with identity.browser() as browser:
        await identity.log_in(browser, tenant, "boss")
        body = {"name": "berta", "roles": ["viewer"]}
        path = f"/api/identity/tenants/{tenant}/users"
        assert (await browser.post(path, json=body, headers={"Origin": "https://evil.example"})).status_code == 403
        assert (await browser.post(path, json=body, headers=OWN)).status_code == 201


async def test_every_deed_is_recorded_once(identity: Identity, tenant: str) -> None:
    await identity.add_user(tenant)
    secret = await identity.add_client(tenant)
    async with identity.browser("192.0.2.77") as browser:
        await identity.log_in(browser, tenant, password="wrong password")
        await identity.log_in(browser, tenant)
        await browser.post("/auth/logout", headers=OWN)
    await identity.client_token(f"{tenant}.edge-1", secret)
    await identity.client_token(f"{tenant}.edge-1", "wrong")
    (await identity.call("PATCH", f"/tenants/{tenant}/users/anna", {"active": False})).raise_for_status()
    await identity.call("DELETE", f"/tenants/{tenant}/clients/edge-1")
    records = [json.loads(event)["data"] for event in await identity.events(AUDIT_RECORDED.name, tenant, 9)]
    told = [(r["action"], r["outcome"], r["actor"]) for r in records]
    assert told == [
        ("create", "success", "system/client:cli"),
        ("create", "success", "system/client:cli"),
        ("log-in", "minor-failure", "user:anna"),
        ("log-in", "success", "user:anna"),
        ("log-out", "success", "user:anna"),
        ("log-in", "success", "client:edge-1"),
        ("refuse", "minor-failure", "client:edge-1"),
        ("change", "success", "system/client:cli"),
        ("delete", "success", "system/client:cli"),
    ]
    assert records[2]["address"] == "192.0.2.77"
    assert records[2]["resource"] == f"POST /auth/login/{tenant}"
    assert records[7]["detail"] == "user anna: disabled"


async def test_repeated_refusals_are_counted_instead_of_flooding_the_record(identity: Identity, tenant: str) -> None:
    await identity.add_user(tenant)
    async with identity.browser() as browser:
        for _ in range(30):
            await identity.log_in(browser, tenant, password="wrong password")
    records = [json.loads(event)["data"] for event in await identity.events(AUDIT_RECORDED.name, tenant, 100, 2)]
    assert [r["action"] for r in records] == ["create", *["log-in"] * 5, "refuse"]
    assert "locked for 30 seconds" in records[5]["detail"]


async def test_no_secret_reaches_logs_or_events(
    identity: Identity, tenant: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    seeded = "seeded secret passphrase"
    await identity.add_user(tenant, password=seeded)
    secret = await identity.add_client(tenant)
    async with identity.browser() as browser:
        await identity.log_in(browser, tenant, password=seeded)
        await identity.log_in(browser, tenant, password=f"{seeded} wrong")
        cookies = [browser.cookies["lightbox_access"], browser.cookies["lightbox_session"]]
        await browser.post("/auth/session/refresh", headers=OWN)
    token = (await identity.client_token(f"{tenant}.edge-1", secret)).json()["access_token"]
    await identity.client_token(f"{tenant}.edge-1", f"{secret}x")
    await identity.call("PATCH", f"/tenants/{tenant}/users/anna", {"password": f"{seeded} 2", "nonsense": seeded})
    await identity.call("POST", f"/tenants/{tenant}/users", {"name": "x", "roles": ["viewer"], "password": [seeded]})
    hashes = await identity.sql("SELECT password_hash FROM users", tenant=tenant)
    events = b"\n".join(await identity.events(AUDIT_RECORDED.name, tenant, 6)).decode()
    printed = capsys.readouterr()
    for text in (caplog.text, printed.out, printed.err, events):
        for hidden in (seeded, PASSWORD, secret, token, BOOTSTRAP, *cookies, hashes[0]["password_hash"]):
            assert hidden not in text


async def test_outdated_hashes_are_renewed_at_the_next_log_in(identity: Identity, tenant: str) -> None:
    from argon2 import PasswordHasher

    await identity.add_user(tenant)
    weak = PasswordHasher(1, 1024, 1).hash(PASSWORD)
    await identity.sql("UPDATE users SET password_hash = $1", weak, tenant=tenant)
    async with identity.browser() as browser:
        assert (await identity.log_in(browser, tenant)).status_code == 303
        assert (await identity.log_in(browser, tenant)).status_code == 303
    renewed = (await identity.sql("SELECT password_hash FROM users", tenant=tenant))[0]["password_hash"]
    assert "m=8192" in renewed


async def test_a_flood_of_log_ins_is_turned_away_before_it_fills_the_memory(identity: Identity) -> None:
    import asyncio

    passwords = identity.app.state.resources.passwords
    outcomes = await asyncio.gather(*(passwords.verify(None, "x") for _ in range(100)), return_exceptions=True)
    assert sum(outcome is False for outcome in outcomes) == 64
    assert sum(getattr(outcome, "status", 0) == 503 for outcome in outcomes) == 36
