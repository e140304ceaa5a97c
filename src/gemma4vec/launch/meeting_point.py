"""The addresses under which the torchruns of several machines find each other."""

import socket
import time

from gemma4vec.errors import InputError

_TRIES = 3  # a name server may be busy


def own_address(endpoint: str) -> str:
    """Return this machine's address as the others see it: the one from which it reaches `endpoint` (HOST:PORT).

    torchrun would take the machine's name, which others may not know, or know as an address of another network. On the
    machine of the endpoint the answer is HOST itself, since all others reach that.

    Raises:
        InputError: this machine cannot find HOST.
    """
    host, _, port = endpoint.rpartition(":")
    family, kind, protocol, _, there = _look_up(host, int(port))[0]
    with socket.socket(family, kind, protocol) as probe:
        try:
            probe.connect(there)  # a datagram socket chooses its address, and sends nothing
        except OSError as error:
            raise InputError(
                f"no way from {socket.gethostname()} to {host}, where the machines meet: {error}"
            ) from error
        own = str(probe.getsockname()[0])
    return host if own == there[0] else own


def _look_up(host: str, port: int) -> list[tuple[int, int, int, str, tuple[str, int]]]:
    for left in reversed(range(_TRIES)):
        try:
            return socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_DGRAM)  # type: ignore[return-value]
        except (OSError, UnicodeError):
            if left:
                time.sleep(1)
    raise InputError(
        f"{socket.gethostname()} does not know the address {host}, where the machines meet; "
        "name one that all machines know, as launch ssh does with --meeting-point"
    )
