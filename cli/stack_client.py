"""What commands need to know of the stack of this data folder."""

from dataclasses import dataclass
from typing import Any, Self

import httpx

from cli.output import CliError
from deploy.local.control import read_status
from deploy.local.credentials import Credentials, load_credentials
from deploy.local.home import Home, find_home, read_json
from deploy.local.service_parts import public_url, service_environment

_OPERATOR_CLIENT = "system.cli"


@dataclass(frozen=True)
class Stack:
    """The stack of one data folder.

    Attributes:
        home: the data folder.
        credentials: its secrets.
        ports: its remembered ports.
    """

    home: Home
    credentials: Credentials
    ports: dict[str, int]

    @classmethod
    def find(cls, *, running: bool = True) -> Self:
        """The stack that LIGHTBOX_HOME or the checkout names.

        Arguments:
            running: whether it has to be up.

        Raises:
            CliError: there is none, or it is not up.
        """
        home = find_home()
        ports = read_json(home.ports_file)
        if "caddy" not in ports or not home.secrets_file.exists():
            raise CliError(f"There is no stack in {home.folder}.", "Start one: lightbox up")
        if running and read_status(home, memory=False).phase != "running":
            raise CliError(f"The stack in {home.folder} is not running.", "Start it: lightbox up")
        return cls(home=home, credentials=load_credentials(home), ports=ports)

    @property
    def public_url(self) -> str:
        """The address of the front door, such as ``http://127.0.0.1:8080``."""
        return public_url(self.ports)

    def service_environment(self, name: str) -> dict[str, str]:
        """The environment in which a service runs here, for one of its commands."""
        return service_environment(name, self.home, self.credentials, self.ports)

    def operator_token(self) -> str:
        """An access token of the operators' client (scope ``tenants:admin``).

        Raises:
            CliError: identity does not give one.
        """
        return self.token(_OPERATOR_CLIENT, self.credentials.identity_bootstrap_secret)

    def token(self, client_id: str, secret: str) -> str:
        """An access token by OAuth 2.0 client credentials (RFC 6749, 4.4).

        Raises:
            CliError: identity does not give one.
        """
        try:
            answer = httpx.post(
                f"{self.public_url}/auth/token",
                data={"grant_type": "client_credentials"},
                auth=(client_id, secret),
                timeout=30,
            )
        except httpx.HTTPError as error:
            raise CliError(f"{self.public_url} does not answer: {error}", "Look: lightbox status") from error
        return str(_checked(answer)["access_token"])

    def call(self, method: str, path: str, *, body: Any = None, token: str | None = None) -> Any:
        """Calls the HTTP API as operator and returns the JSON of the answer, None when it has none.

        Arguments:
            method: the HTTP method.
            path: a path below the front door, such as ``/api/identity/tenants``.
            body: what is sent as JSON.
            token: another token than the operators'.

        Raises:
            CliError: the answer is an error; its text is the problem's.
        """
        try:
            answer = httpx.request(
                method,
                f"{self.public_url}{path}",
                json=body,
                headers={"Authorization": f"Bearer {token or self.operator_token()}"},
                timeout=60,
            )
        except httpx.HTTPError as error:
            raise CliError(f"{self.public_url} does not answer: {error}", "Look: lightbox status") from error
        return _checked(answer)


def _checked(answer: httpx.Response) -> Any:
    """The JSON of an answer that is not an error."""
    if answer.is_success:
        return answer.json() if answer.content else None
    try:
        problem = answer.json()
        text = problem.get("detail") or problem.get("error_description") or problem.get("title") or ""
    except ValueError:
        text = ""
    text = text or f"{answer.request.method} {answer.request.url.path} answers {answer.status_code}"
    raise CliError(text, "lightbox logs identity" if answer.status_code >= 500 else "")
