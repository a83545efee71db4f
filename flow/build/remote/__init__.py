"""Another host, over the OpenSSH client: build plans, folders, programs. README.md has the picture."""

from flow.build.remote.build import remove, run
from flow.build.remote.folders import fetch, push
from flow.build.remote.ssh import FOLDER, Host, RemoteFailure, UnreachableError, call, check, versions

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
