"""The identity service as the command line sees it: tenants, users and clients, as the operator of this stack."""

from types import TracebackType
from typing import Any, Self

import httpx

from cli.output import CliError
from deploy.local.home import Home, read_json

_TIMEOUT = 20.0


class IdentityError(CliError):
    """The identity service refused, or does not answer; the text says why.

    Attributes:
        status: the HTTP status, 0 when there was no answer.
    """

    def __init__(self, what: str, help_text: str = "", *, status: int = 0) -> None:
        super().__init__(what, help_text)
        self.status = status


class IdentityApi:
    """Asks the identity service through the front door. A context manager.

    Arguments:
        public_url: the front door.
        secret: of the client ``system.cli``.
    """

    def __init__(self, public_url: str, secret: str) -> None:
        self._http = httpx.Client(base_url=public_url, timeout=_TIMEOUT)
        self._secret = secret
        self._token = ""

    @classmethod
    def of_stack(cls, home: Home) -> Self:
        """That of the stack of this data folder.

        Raises:
            IdentityError: the stack was never up.
        """
        secret = read_json(home.secrets_file).get("identity_bootstrap_secret", "")
        url = read_json(home.state_file).get("public_url", "")
        if not secret or not url:
            raise IdentityError("The stack was never started here.", "Start it: lightbox up")
        return cls(url, secret)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def create_tenant(self, tenant: str, name: str) -> bool:
        """Makes a tenant; False when it was there."""
        return self._create("/api/identity/tenants", {"id": tenant, "name": name}) is not None

    def create_user(self, tenant: str, name: str, display_name: str, role: str, password: str) -> bool:
        """Makes a user; False when there was one of that name."""
        wanted = {"name": name, "display_name": display_name, "roles": [role], "password": password}
        return self._create(f"/api/identity/tenants/{tenant}/users", wanted) is not None

    def set_password(self, tenant: str, name: str, password: str) -> None:
        """Gives a user another password."""
        self._ask("PATCH", f"/api/identity/tenants/{tenant}/users/{name}", {"password": password})

    def create_client(self, tenant: str, name: str, scopes: list[str]) -> tuple[str, str]:
        """Makes an OAuth2 client, or gives the one of that name a new secret.

        Returns:
            Its id and its secret.
        """
        path = f"/api/identity/tenants/{tenant}/clients"
        made = self._create(path, {"name": name, "scopes": scopes})
        if made is None:
            made = self._ask("POST", f"{path}/{name}/rotate")
        return str(made["client_id"]), str(made["client_secret"])

    def delete_client(self, tenant: str, name: str) -> None:
        """Removes an OAuth2 client, if it is there."""
        try:
            self._ask("DELETE", f"/api/identity/tenants/{tenant}/clients/{name}")
        except IdentityError as error:
            if error.status != 404:
                raise

    def token(self, client_id: str = "system.cli", secret: str = "") -> str:
        """An access token of a client, that of the command line by default."""
        try:
            response = self._http.post(
                "/auth/token", data={"grant_type": "client_credentials"}, auth=(client_id, secret or self._secret)
            )
        except httpx.HTTPError as error:
            raise IdentityError(f"The front door does not answer: {error}", "Look: lightbox status") from error
        if response.status_code != 200:
            raise IdentityError(f"No token for {client_id}: {_reason(response)}", status=response.status_code)
        return str(response.json()["access_token"])

    def _create(self, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        try:
            return self._ask("POST", path, body)
        except IdentityError as error:
            if error.status == 409:
                return None
            raise

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        self._token = self._token or self.token()
        try:
            response = self._http.request(method, path, json=body, headers={"Authorization": f"Bearer {self._token}"})
        except httpx.HTTPError as error:
            raise IdentityError(f"The front door does not answer: {error}", "Look: lightbox status") from error
        if response.status_code >= 400:
            raise IdentityError(_reason(response), status=response.status_code)
        answer: dict[str, Any] = response.json() if response.content else {}
        return answer


def _reason(response: httpx.Response) -> str:
    try:
        problem = response.json()
    except ValueError:
        return f"HTTP {response.status_code}"
    if not isinstance(problem, dict):
        return f"HTTP {response.status_code}"
    words = problem.get("detail") or problem.get("title") or problem.get("error_description") or problem.get("error")
    return str(words or f"HTTP {response.status_code}")
