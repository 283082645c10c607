"""What commands need to know of the stack of this data folder."""

from dataclasses import dataclass
from typing import Any, Self

from cli.identity_api import IdentityApi
from cli.output import CliError
from deploy.local.control import read_status
from deploy.local.credentials import Credentials, load_credentials
from deploy.local.home import Home, find_home, read_json
from deploy.local.service_parts import public_url, service_environment


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

    def api(self) -> IdentityApi:
        """The API of this stack, asked as operator; a context manager."""
        return IdentityApi(self.public_url, self.credentials.identity_bootstrap_secret)

    def call(self, method: str, path: str, *, body: Any = None, token: str | None = None) -> Any:
        """Calls the API once; see ``IdentityApi.ask``."""
        with self.api() as api:
            return api.ask(method, path, body, token=token)
