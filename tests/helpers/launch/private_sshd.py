"""Two hosts of ssh on this machine: servers on loopback addresses with their own keys, ports and configuration."""

import contextlib
import getpass
import os
import shlex
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
from daemons import Daemons, daemons, find_or_skip, free_ports, until

ADDRESSES = {"g4va": "127.0.0.2", "g4vb": "127.0.0.3"}
PRIVILEGE_SEPARATION = Path("/run/sshd")  # a server of root wants this folder


@dataclass
class Hosts:
    """Names that only our ssh knows.

    Attributes:
        folder: of keys, configuration and logs.
        path: a PATH whose ssh reads our configuration.
        servers: the process of each host's server.
    """

    folder: Path
    path: str
    servers: dict[str, "subprocess.Popen[bytes]"]
    started: Daemons

    @property
    def version(self) -> str:
        return subprocess.run(["ssh", "-V"], capture_output=True, text=True).stderr.strip()

    def sessions(self, host: str) -> list[psutil.Process]:
        """The processes of the server that hold connections."""
        return psutil.Process(self.servers[host].pid).children()

    def clients(self, host: str) -> list[psutil.Process]:
        """Our ssh's processes that are connected with a host."""
        found = []
        for one in psutil.process_iter(["cmdline"]):
            words = one.info["cmdline"] or []
            if words[:1] == ["ssh"] and str(self.folder / "config") in words and host in words:
                found.append(one)
        return found


@contextlib.contextmanager
def private_sshd(folder: Path) -> Iterator[Hosts]:
    """Start a server for each of `ADDRESSES`."""
    sshd, ssh, keygen = find_or_skip("sshd", "ssh", "ssh-keygen")
    if os.geteuid() == 0:
        PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
    folder.mkdir(mode=0o700)
    for name in ("host", "user"):
        subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    (folder / "authorized_keys").write_text((folder / "user.pub").read_text())
    host_key = (folder / "host.pub").read_text()
    names, known = [], []
    with daemons(folder) as started:
        servers = {}
        for (name, address), port in zip(ADDRESSES.items(), free_ports(len(ADDRESSES)), strict=True):
            settings = folder / f"{name}.sshd"
            settings.write_text(
                f"ListenAddress {address}\nPort {port}\nHostKey {folder}/host\nPidFile none\nUsePAM no\n"
                f"AuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nPasswordAuthentication no\n"
                "KbdInteractiveAuthentication no\nPermitRootLogin yes\nX11Forwarding no\nPrintMotd no\n"
            )
            servers[name] = started.start(name, [sshd, "-D", "-e", "-f", str(settings)])
            names.append(f"Host {name}\n  HostName {address}\n  Port {port}\n")
            known.append(f"[{address}]:{port} {host_key}")
        (folder / "known_hosts").write_text("".join(known))
        (folder / "config").write_text(
            "".join(names) + f"Host *\n  User {getpass.getuser()}\n  IdentityFile {folder}/user\n  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {folder}/known_hosts\n  StrictHostKeyChecking yes\n"
        )
        (folder / "bin").mkdir()
        ours = folder / "bin" / "ssh"
        config = shlex.quote(str(folder / "config"))
        ours.write_text(f'#!/bin/bash\nexec -a ssh {shlex.quote(ssh)} -F {config} "$@"\n')
        ours.chmod(0o755)
        hosts = Hosts(folder, f"{folder / 'bin'}:{os.environ.get('PATH', '')}", servers, started)
        for name in ADDRESSES:
            until(partial(_answers, folder, name), f"the server of {name} answers", 60)
        yield hosts


def _answers(folder: Path, name: str) -> bool:
    lines = (folder / f"{name}.sshd").read_text().split()
    with contextlib.suppress(OSError):
        socket.create_connection((lines[1], int(lines[3])), timeout=5).close()
        return True
    return False
