"""A real sshd on 127.0.0.1 for the tests of flow.build.remote: own keys, own home, its own programs first on PATH."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from conftest import needs

from flow.build.remote import Host

_PLACES = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))
SSHD = shutil.which("sshd", path=_PLACES)
needs_sshd = needs("sshd", "ssh")


class Server:
    """One sshd; everything of it lies under one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.bin = folder / "bin"
        self.known_hosts = folder / "known_hosts"
        self.authorized_keys = folder / "authorized_keys"
        self.config = folder / "ssh config"  # a space: names of files are no shell words
        for path in (self.home, self.bin):
            path.mkdir()
        for key in ("host_key", "user_key", "other_key"):
            generate = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key))
            subprocess.run(generate, check=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.authorize("user_key")
        self.know("host_key")
        self._write_configs()
        self.start()

    def _write_configs(self) -> None:
        (self.folder / "sshd_config").write_text(
            f"ListenAddress 127.0.0.1\nPort {self.port}\nHostKey {self.folder}/host_key\n"
            f"AuthorizedKeysFile {self.authorized_keys}\nStrictModes no\nUsePAM no\nPidFile none\nUseDNS no\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n"
            "KexAlgorithms curve25519-sha256\n"  # half as long as the default; some five calls a build
            f"SetEnv HOME={self.home} PATH={self.bin}:/usr/bin:/bin\n"
        )
        self.config.write_text(
            f"Host workstation\n HostName 127.0.0.1\n Port {self.port}\n IdentityFile {self.folder}/user_key\n"
            f" IdentitiesOnly yes\n UserKnownHostsFile {self.known_hosts}\n GlobalKnownHostsFile /dev/null\n"
        )

    def host(self, setup: str | None = None, folder: str = "builds") -> Host:
        return Host("workstation", self.config, setup, folder)

    def authorize(self, key: str) -> None:
        shutil.copy(self.folder / f"{key}.pub", self.authorized_keys)

    def know(self, key: str | None) -> None:
        """Put the public key on record as the host's; None: none is known."""
        text = f"[127.0.0.1]:{self.port} {(self.folder / f'{key}.pub').read_text()}" if key else ""
        self.known_hosts.write_text(text)

    def program(self, name: str, script: str) -> None:
        """Put a shell script on the PATH of this host."""
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def start(self) -> None:
        assert SSHD is not None, "sshd must be installed (Debian: apt install openssh-server)"
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        with (self.folder / "sshd.log").open("ab") as log:
            self.process = subprocess.Popen(
                (SSHD, "-D", "-e", "-f", str(self.folder / "sshd_config")), stderr=log, start_new_session=True
            )
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.02)
        raise AssertionError((self.folder / "sshd.log").read_text())

    def stop(self) -> None:
        """End the server and its connections; what was started detached there goes on."""
        if self.process.poll() is None:
            connections = self.connections()
            self.process.kill()
            self.process.wait()
            _kill(connections)

    def cut(self) -> int:
        """Kill the connections, as a network that goes away does, and return how many there were."""
        connections = self.connections()
        _kill(connections)
        return len(connections)

    def connections(self) -> list[int]:
        pid = self.process.pid
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _kill(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """Give a server; with it ends what builds still run there."""
    folder.mkdir()
    server = Server(folder)
    try:
        yield server
    finally:
        server.stop()
        for mark in server.home.rglob("mark"):
            pid, start, *_ = mark.read_text().split()
            with contextlib.suppress(OSError):  # the start tells it from another process of the same number
                if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19] == start:
                    os.killpg(int(pid), signal.SIGKILL)
