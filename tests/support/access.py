"""Access tokens of the demo's users and clients, taken as browsers and programs take them."""

import httpx

from deploy.local.home import Home
from deploy.local.service_parts import known_edges
from tests.support.shown import Shown


def user_token(shown: Shown, tenant: str, user: str) -> str:
    """The access token of a user who logs in by the form."""
    with httpx.Client(base_url=shown.url, timeout=30) as client:
        answer = client.post(
            f"/auth/login/{tenant}",
            data={"name": user, "password": shown.password(tenant, user), "next": "/"},
            headers={"Origin": shown.url},
        )
        assert answer.status_code == 303, answer.text
        return str(client.cookies["lightbox_access"])


def edge_token(shown: Shown, tenant: str) -> str:
    """The access token of the tenant's edge (scope ``dicom:write``)."""
    edge = next(edge for edge in known_edges(Home(shown.home)) if edge.tenant == tenant)
    answer = httpx.post(
        f"{shown.url}/auth/token",
        data={"grant_type": "client_credentials"},
        auth=(edge.client_id, edge.client_secret),
        timeout=30,
    )
    assert answer.status_code == 200, answer.text
    return str(answer.json()["access_token"])


def bearer(token: str) -> dict[str, str]:
    """The header that carries it."""
    return {"Authorization": f"Bearer {token}"}
