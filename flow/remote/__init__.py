"""Another host, over the OpenSSH client: build plans, folders, programs. README.md has the picture."""

from flow.remote.build import remove, run
from flow.remote.folders import fetch, push
from flow.remote.ssh import FOLDER, Host, RemoteFailure, UnreachableError, call, check, versions

__all__ = [
    "FOLDER",
    "Host",
    "RemoteFailure",
    "UnreachableError",
    "call",
    "check",
    "fetch",
    "push",
    "remove",
    "run",
    "versions",
]
