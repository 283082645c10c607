"""If these fail, readers can't get at their studies, or somebody else can."""

import asyncio
import re
import time
from datetime import timedelta
from pathlib import Path

import httpx
import jwt
import pytest

from libs.web.problems import Unauthorized
from tests.services.identity.conftest import OWN, PASSWORD, Identity, running
from tests.support.backing import Backing


def _set_cookie(answer: httpx.Response, name: str) -> str:
    return next(v for v in answer.headers.get_list("set-cookie") if v.startswith(f"{name}="))


async def test_the_page_names_the_clinic_and_suits_password_managers(identity: Identity, tenant: str) -> None:
    await identity.sql("UPDATE tenants SET name = $2 WHERE id = $1", tenant, "Nord <b>Klinik</b>")
    async with identity.browser() as browser:
        page = await browser.get(f"/auth/login/{tenant}?next=/studies")
        style = await browser.get(re.search(r'href="(/auth/static/auth[^"]+)"', page.text)[1])  # type: ignore[index]
    assert page.status_code == 200
    assert "Nord &lt;b&gt;Klinik&lt;/b&gt;" in page.text
    assert 'autocomplete="username"' in page.text
    assert 'autocomplete="current-password"' in page.text
    assert 'name="next" value="/studies"' in page.text
    assert style.headers["content-type"].startswith("text/css")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy
    assert "frame-ancestors 'none'" in policy
    assert not re.search(r"<style|<script|\sstyle=|\son\w+=", page.text)


async def test_log_in_gives_both_cookies_and_goes_where_the_user_wanted(identity: Identity, tenant: str) -> None:
    await identity.add_user(tenant)
    async with identity.browser() as browser:
        answer = await identity.log_in(browser, tenant, " Anna ", next="/studies?q=CT")
        assert answer.status_code == 303
        assert answer.headers["location"] == "/studies?q=CT"
        access, session = _set_cookie(answer, "lightbox_access"), _set_cookie(answer, "lightbox_session")
        for cookie in (access, session):
            assert "HttpOnly" in cookie
            assert "SameSite=lax" in cookie
            assert "Secure" not in cookie
        assert "Path=/;" in access
        assert "Path=/auth;" in session
        assert "Max-Age=600" in access
        me = (await browser.get("/auth/me")).json()
    assert me == {
        "tenant": tenant,
        "subject": "user:anna",
        "name": "Anna",
        "roles": ["radiologist"],
        "scopes": ["dicom:read", "dicom:write"],
    }
    principal = await identity.verifier().verify(re.match(r"lightbox_access=([^;]+)", access)[1])  # type: ignore[index]
    assert principal.tenant == tenant
    assert principal.session
    stored = await identity.sql("SELECT id_hash FROM sessions", tenant=tenant)
    assert len(stored) == 1
    assert session.split("=")[1].split(";")[0].split(".")[1].encode() not in stored[0]["id_hash"]


async def test_cookies_are_secure_behind_https(backing: Backing, tmp_path: Path, tenant: str) -> None:
    async with running(backing, tmp_path, public_url="https://pacs.example") as identity:
        await identity.add_user(tenant)
        async with identity.browser() as browser:
            answer = await browser.post(
                f"/auth/login/{tenant}",
                data={"name": "anna", "password": PASSWORD},
                headers={"Origin": "https://pacs.example"},
            )
    cookies = answer.headers.get_list("set-cookie")
    assert len(cookies) == 3
    assert all("Secure" in cookie for cookie in cookies)


@pytest.mark.parametrize(
    ("name", "password"),
    [("anna", "wrong password"), ("nobody", PASSWORD), ("anna", ""), ("anna", "x" * 3000), ("an\x00na", PASSWORD)],
)
async def test_wrong_credentials_say_the_same_and_open_nothing(
    identity: Identity, tenant: str, name: str, password: str
) -> None:
    await identity.add_user(tenant)
    async with identity.browser() as browser:
        answer = await identity.log_in(browser, tenant, name, password)
    assert answer.status_code == 401
    assert "The name or the password is wrong" in answer.text
    assert 'role="alert"' in answer.text
    assert "set-cookie" not in answer.headers
    assert password not in answer.text or not password


async def test_unknown_users_take_as_long_as_wrong_passwords(identity: Identity, tenant: str) -> None:
    await identity.add_user(tenant)

    async def seconds(name: str) -> float:
        async with identity.browser() as browser:
            started = time.perf_counter()
            await identity.log_in(browser, tenant, name, "wrong password")
            return time.perf_counter() - started

    known = min([await seconds("anna") for _ in range(3)])
    unknown = min([await seconds("nobody") for _ in range(3)])
    assert unknown > known / 2


async def test_the_same_name_in_another_tenant_is_another_user(
    identity: Identity, tenant_pair: tuple[str, str]
) -> None:
    north, south = tenant_pair
    await identity.add_user(north, password="the password of north")
    await identity.add_user(south, password="the password of south", roles=("viewer",))
    async with identity.browser() as browser:
        assert (await identity.log_in(browser, south, password="the password of north")).status_code == 401
        assert (await identity.log_in(browser, south, password="the password of south")).status_code == 303
        assert (await browser.get("/auth/me")).json()["tenant"] == south
        # The session of one tenant is unknown in the other.
        secret = browser.cookies["lightbox_session"].split(".")[1]
    async with identity.browser() as browser:
        browser.cookies.set("lightbox_session", f"{north}.{secret}")
        assert (await browser.post("/auth/session/refresh", headers=OWN)).status_code == 401


async def test_failed_log_ins_lock_out_with_growing_waits(identity: Identity, tenant: str) -> None:
    await identity.add_user(tenant)
    async with identity.browser() as browser:
        for _ in range(5):
            assert (await identity.log_in(browser, tenant, password="wrong password")).status_code == 401
        locked = await identity.log_in(browser, tenant)
        assert locked.status_code == 429
        assert 1 <= int(locked.headers["retry-after"]) <= 31
        assert "Try again in" in locked.text
        # Names that don't exist are locked in the same way, so that a lock tells nothing.
        for _ in range(5):
            assert (await identity.log_in(browser, tenant, "nobody", "wrong password")).status_code == 401
        assert (await identity.log_in(browser, tenant, "nobody")).status_code == 429

        await _age(identity, tenant, 31)
        assert (await identity.log_in(browser, tenant, password="wrong password")).status_code == 401
        again = await identity.log_in(browser, tenant)
        assert again.status_code == 429
        assert int(again.headers["retry-after"]) > 31
        await _age(identity, tenant, 61)
        assert (await identity.log_in(browser, tenant)).status_code == 303
        assert not await identity.sql("SELECT 1 FROM login_attempts WHERE subject = 'user:anna'", tenant=tenant)


async def _age(identity: Identity, tenant: str, seconds: int) -> None:
    await identity.sql(
        "UPDATE login_attempts SET since = since - $1::interval", timedelta(seconds=seconds), tenant=tenant
    )


async def test_guesses_at_once_do_not_slip_past_the_lock_out(identity: Identity, tenant: str) -> None:
    await identity.add_user(tenant)
    async with identity.browser() as browser:
        answers = await asyncio.gather(
            *(identity.log_in(browser, tenant, password=f"guess number {n}") for n in range(20))
        )
    assert sorted(answer.status_code for answer in answers) == [401] * 5 + [429] * 15


async def test_one_address_is_locked_out_alone(identity: Identity, tenant: str) -> None:
    await identity.add_user(tenant)
    async with identity.browser("198.51.100.7") as attacker:
        assert (await identity.log_in(attacker, tenant, "somebody", "wrong password")).status_code == 401
        await identity.sql("UPDATE login_attempts SET failures = 50 WHERE subject LIKE 'address:%'", tenant=tenant)
        assert (await identity.log_in(attacker, tenant)).status_code == 429
    async with identity.browser("198.51.100.8") as reader:
        assert (await identity.log_in(reader, tenant)).status_code == 303


async def test_made_up_names_fill_no_table(identity: Identity, tenant: str) -> None:
    from services.identity.domain import address_attempts, client_attempts, user_attempts

    assert len({user_attempts(f"name{n}", known=False) for n in range(20000)}) <= 4096
    assert len({address_attempts(f"2001:db8::{n:x}") for n in range(1000)}) == 1
    assert len(address_attempts("203.0.113.9")) == len("address:0000")
    assert len(client_attempts("x" * 1000, "203.0.113.9")) == len("client:0000")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site", "Origin": OWN["Origin"]},
    ],
    ids=str,
)
async def test_forms_of_other_sites_are_refused(identity: Identity, tenant: str, headers: dict[str, str]) -> None:
    await identity.add_user(tenant)
    async with identity.browser() as browser:
        form = {"name": "anna", "password": PASSWORD}
        answer = await browser.post(f"/auth/login/{tenant}", data=form, headers=headers)
        assert answer.status_code == 403
        assert "does not come from this site" in answer.text
        assert "set-cookie" not in answer.headers
        await identity.log_in(browser, tenant)
        assert (await browser.post("/auth/logout", headers=headers)).status_code == 403
        assert (await browser.post("/auth/session/refresh", headers=headers)).status_code == 403
        assert (await browser.post("/auth/session/refresh", headers=OWN)).status_code == 204


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example/",
        "//evil.example/",
        "/\\evil.example",
        "\\\\evil.example",
        "/\t/evil.example",
        "\n//evil.example",
        "javascript:alert(1)",
        "http:/evil.example",
        "evil.example",
        "/" + "a" * 3000,
        "",
    ],
)
async def test_a_log_in_leads_nowhere_else(identity: Identity, tenant: str, target: str) -> None:
    await identity.add_user(tenant)
    async with identity.browser() as browser:
        answer = await identity.log_in(browser, tenant, next=target)
        assert answer.status_code == 303
        assert answer.headers["location"] == "/"
        renewed = await browser.get("/auth/renew", params={"next": target})
        assert renewed.headers["location"] == "/"


async def test_refresh_goes_on_until_log_out(identity: Identity, tenant: str) -> None:
    await identity.add_user(tenant)
    async with identity.browser() as browser:
        await identity.log_in(browser, tenant)
        first = browser.cookies["lightbox_access"]
        stolen = browser.cookies["lightbox_session"]
        assert (await browser.post("/auth/session/refresh", headers=OWN)).status_code == 204
        second = browser.cookies["lightbox_access"]
        assert second != first
        assert (await identity.verifier().verify(second)).subject == "user:anna"
        assert (await browser.get("/auth/renew", params={"next": "/x"})).headers["location"] == "/x"

        left = await browser.post("/auth/logout", headers=OWN)
        assert left.status_code == 303
        assert left.headers["location"] == f"/auth/login/{tenant}"
        assert "lightbox_access" not in browser.cookies
        assert "lightbox_session" not in browser.cookies
    async with identity.browser() as thief:
        thief.cookies.set("lightbox_session", stolen)
        assert (await thief.post("/auth/session/refresh", headers=OWN)).status_code == 401
        renewed = await thief.get("/auth/renew", params={"next": "/x"})
        assert renewed.headers["location"] == f"/auth/login/{tenant}?next=%2Fx"
        assert "lightbox_access" not in thief.cookies


@pytest.mark.parametrize("column", ["expires_at", "seen_at"])
async def test_sessions_end_by_themselves(identity: Identity, tenant: str, column: str) -> None:
    await identity.add_user(tenant)
    async with identity.browser() as browser:
        await identity.log_in(browser, tenant)
        ago = {"expires_at": "now() - interval '1 s'", "seen_at": "now() - interval '61 min'"}[column]
        await identity.sql(f"UPDATE sessions SET {column} = {ago}", tenant=tenant)
        assert (await browser.post("/auth/session/refresh", headers=OWN)).status_code == 401
    assert not await identity.sql("SELECT 1 FROM sessions", tenant=tenant)


async def test_a_page_that_nobody_touches_does_not_keep_the_session(identity: Identity, tenant: str) -> None:
    await identity.add_user(tenant)
    async with identity.browser() as browser:
        await identity.log_in(browser, tenant)
        await identity.sql("UPDATE sessions SET seen_at = now() - interval '50 min'", tenant=tenant)
        assert (await browser.post("/auth/session/refresh?idle=3000", headers=OWN)).status_code == 204
        await identity.sql("UPDATE sessions SET seen_at = seen_at - interval '11 min'", tenant=tenant)
        assert (await browser.post("/auth/session/refresh?idle=3660", headers=OWN)).status_code == 401


@pytest.mark.parametrize(
    "change",
    [{"active": False}, {"roles": ["viewer"]}, {"password": "another fine password"}, {"reset_password": True}],
    ids=str,
)
async def test_changes_of_a_user_end_its_sessions(identity: Identity, tenant: str, change: dict[str, object]) -> None:
    await identity.add_user(tenant)
    async with identity.browser() as browser:
        await identity.log_in(browser, tenant)
        (await identity.call("PATCH", f"/tenants/{tenant}/users/anna", change)).raise_for_status()
        assert (await browser.post("/auth/session/refresh", headers=OWN)).status_code == 401
        expected = 303 if "roles" in change else 401
        assert (await identity.log_in(browser, tenant)).status_code == expected


async def test_a_user_has_twenty_sessions_at_most(identity: Identity, tenant: str) -> None:
    await identity.add_user(tenant)
    async with identity.browser() as browser:
        await identity.log_in(browser, tenant)
        await identity.sql(
            "INSERT INTO sessions (tenant_id, id_hash, user_name, expires_at) "
            "SELECT $1, decode(md5(n::text), 'hex'), 'anna', now() + interval '1 h' FROM generate_series(1, 30) n",
            tenant,
            tenant=tenant,
        )
        await identity.log_in(browser, tenant)
        assert (await browser.post("/auth/session/refresh", headers=OWN)).status_code == 204
    assert len(await identity.sql("SELECT 1 FROM sessions", tenant=tenant)) == 20


async def test_a_suspended_clinic_gets_no_tokens(identity: Identity, tenant: str) -> None:
    await identity.add_user(tenant)
    secret = await identity.add_client(tenant)
    async with identity.browser() as browser:
        await identity.log_in(browser, tenant)
        (await identity.call("PATCH", f"/tenants/{tenant}", {"state": "suspended"})).raise_for_status()
        assert (await browser.post("/auth/session/refresh", headers=OWN)).status_code == 401
        refused = await identity.log_in(browser, tenant)
        assert refused.status_code == 403
        assert "suspended" in refused.text
        token = await identity.client_token(f"{tenant}.edge-1", secret)
        assert (token.status_code, token.json()["error"]) == (400, "unauthorized_client")
        (await identity.call("PATCH", f"/tenants/{tenant}", {"state": "active"})).raise_for_status()
        assert (await identity.log_in(browser, tenant)).status_code == 303


async def test_the_clinic_is_asked_for_once(identity: Identity, tenant: str) -> None:
    await identity.add_user(tenant)
    async with identity.browser() as browser:
        page = await browser.get("/auth/login?next=/studies")
        assert page.status_code == 200
        assert "Which clinic?" in page.text
        unknown = await browser.get("/auth/login", params={"clinic": "no-such-clinic"})
        assert unknown.status_code == 404
        assert "There is no clinic" in unknown.text
        known = await browser.get("/auth/login", params={"clinic": tenant.upper(), "next": "/studies"})
        assert known.headers["location"] == f"/auth/login/{tenant}?next=%2Fstudies"
        await identity.log_in(browser, tenant)
        again = await browser.get("/auth/login?next=/studies")
        assert again.headers["location"] == f"/auth/login/{tenant}?next=%2Fstudies"
        assert "Which clinic?" in (await browser.get("/auth/login?another=1")).text


@pytest.mark.parametrize("path", ["no-such-clinic", "A'--", "..%2f..", "x" * 300, "%00"])
async def test_an_unknown_clinic_is_a_page_in_words(identity: Identity, path: str) -> None:
    async with identity.browser() as browser:
        for answer in (
            await browser.get(f"/auth/login/{path}"),
            await browser.post(f"/auth/login/{path}", data={"name": "a", "password": "b"}, headers=OWN),
        ):
            assert answer.status_code == 404


async def test_a_forged_session_cookie_is_no_session(identity: Identity, tenant: str) -> None:
    for value in ("", "x", f"{tenant}.", f"{tenant}.{'a' * 43}", f"no-such.{'a' * 43}", f"{tenant}.{'a' * 5000}"):
        async with identity.browser() as browser:
            headers = OWN | {"Cookie": f"lightbox_session={value}"}
            assert (await browser.post("/auth/session/refresh", headers=headers)).status_code == 401
            assert (await browser.post("/auth/logout", headers=headers)).status_code == 303


async def test_an_access_token_alone_renews_nothing(identity: Identity, tenant: str) -> None:
    await identity.add_user(tenant)
    token = await identity.token_of(tenant)
    async with identity.browser() as browser:
        assert (await browser.post("/auth/session/refresh", headers=OWN | token)).status_code == 401


async def test_expired_tokens_are_refused(identity: Identity, tenant: str) -> None:
    key = identity.app.state.resources.keys.ring.keys[0]
    claims = {"iss": "lightbox", "aud": "lightbox", "sub": "user:anna", "tenant": tenant, "scope": "users:admin"}
    now = int(time.time())
    stale = jwt.encode(claims | {"iat": now - 700, "exp": now - 100}, key.private, "ES256", {"kid": key.id})
    with pytest.raises(Unauthorized):
        await identity.verifier().verify(stale)
    answer = await identity.call("GET", f"/tenants/{tenant}/users", headers={"Authorization": f"Bearer {stale}"})
    assert answer.status_code == 401
