"""The HTTP API as the command line asks it, as the operator of this stack: tenants, users and clients above all."""

from types import TracebackType
from typing import Any, Self

import httpx

from cli.output import CliError
from deploy.local.home import Home, read_json

_TIMEOUT = 60.0
_OPERATOR_CLIENT = "system.cli"


class IdentityError(CliError):
    """The API refused, or does not answer; the text says why.

    Attributes:
        status: the HTTP status, 0 when there was no answer.
    """

    def __init__(self, what: str, help_text: str = "", *, status: int = 0) -> None:
        super().__init__(what, help_text)
        self.status = status


class IdentityApi:
    """Asks the API through the front door. A context manager.

    Arguments:
        public_url: the front door.
        secret: of the client ``system.cli``.
    """

    def __init__(self, public_url: str, secret: str) -> None:
        self._http = httpx.Client(base_url=public_url, timeout=_TIMEOUT)
        self._public_url = public_url
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
        self.ask("PATCH", f"/api/identity/tenants/{tenant}/users/{name}", {"password": password})

    def create_client(self, tenant: str, name: str, scopes: list[str]) -> tuple[str, str]:
        """Makes an OAuth2 client, or gives the one of that name a new secret.

        Returns:
            Its id and its secret.
        """
        path = f"/api/identity/tenants/{tenant}/clients"
        made = self._create(path, {"name": name, "scopes": scopes})
        if made is None:
            made = self.ask("POST", f"{path}/{name}/rotate")
        return str(made["client_id"]), str(made["client_secret"])

    def delete_client(self, tenant: str, name: str) -> None:
        """Removes an OAuth2 client, if it is there."""
        try:
            self.ask("DELETE", f"/api/identity/tenants/{tenant}/clients/{name}")
        except IdentityError as error:
            if error.status != 404:
                raise

    def token(self, client_id: str = _OPERATOR_CLIENT, secret: str = "") -> str:
        """An access token by OAuth 2.0 client credentials (RFC 6749, 4.4), of the command line's client by default.

        Raises:
            IdentityError: there is none.
        """
        credentials = (client_id, secret or self._secret)
        granted = self._send("POST", "/auth/token", data={"grant_type": "client_credentials"}, auth=credentials)
        return str(granted["access_token"])

    def ask(self, method: str, path: str, body: Any = None, *, token: str | None = None) -> Any:
        """Calls the API and returns the JSON of the answer, None when it has none.

        Arguments:
            method: the HTTP method.
            path: a path below the front door, such as ``/api/identity/tenants``.
            body: what is sent as JSON.
            token: another token than the operators'.

        Raises:
            IdentityError: the answer is an error; its text is the problem's.
        """
        if token is None:
            token = self._token = self._token or self.token()
        return self._send(method, path, json=body, headers={"Authorization": f"Bearer {token}"})

    def _create(self, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        try:
            made: dict[str, Any] = self.ask("POST", path, body)
        except IdentityError as error:
            if error.status == 409:
                return None
            raise
        return made

    def _send(self, method: str, path: str, **content: Any) -> Any:
        try:
            answer = self._http.request(method, path, **content)
        except httpx.HTTPError as error:
            raise IdentityError(f"{self._public_url} does not answer: {error}", "Look: lightbox status") from error
        if not answer.is_success:
            look = "lightbox logs identity" if answer.is_server_error else ""
            raise IdentityError(_reason(answer), look, status=answer.status_code)
        return answer.json() if answer.content else None


def _reason(answer: httpx.Response) -> str:
    """What is wrong, in the words of the API or of OAuth 2.0 (RFC 6749, 5.2)."""
    try:
        problem = answer.json()
    except ValueError:
        problem = None
    keys = ("detail", "error_description", "title", "error") if isinstance(problem, dict) else ()
    said = next((str(problem[key]) for key in keys if problem.get(key)), "")
    return said or f"{answer.request.method} {answer.request.url.path} answers {answer.status_code}"
