"""Free ports, found once and remembered."""

import random
import socket
from typing import Final

from deploy.local.home import Home, locked, read_json, write_json

# Below the range from which systems take ports for outgoing connections, so that a port stays free while its
# part is being restarted.
_FIRST: Final = 20000
_LAST: Final = 32000
_FRONT_DOOR: Final = 8080


def is_free(port: int) -> bool:
    """Whether a server could listen on the port of 127.0.0.1 now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def find_free(taken: set[int]) -> int:
    """A free port that is not among those taken.

    Raises:
        OSError: there is none.
    """
    for _ in range(1000):
        port = random.randint(_FIRST, _LAST)
        if port not in taken and is_free(port):
            return port
    raise OSError(f"no free port between {_FIRST} and {_LAST} on 127.0.0.1")


def remembered_ports(home: Home, names: tuple[str, ...], *, renew_taken: bool = False) -> dict[str, int]:
    """The port of each name; those asked for the first time are chosen and written down.

    Arguments:
        home: the data folder.
        names: what needs a port, for example ``postgres`` or ``seaweedfs.filer``. ``caddy`` gets 8080 if it can.
        renew_taken: give up remembered ports on which somebody listens; only while none of the parts runs.
    """
    with locked(home.folder / ".ports.lock"):
        known: dict[str, int] = read_json(home.ports_file)
        before = dict(known)
        for name in names:
            if name in known and not (renew_taken and not is_free(known[name])):
                continue
            known.pop(name, None)
            taken = set(known.values())
            wanted = _FRONT_DOOR if name == "caddy" and _FRONT_DOOR not in taken and is_free(_FRONT_DOOR) else 0
            known[name] = wanted or find_free(taken)
        if known != before:
            write_json(home.ports_file, known)
    return known
