"""In ``make quick`` every Python process runs this first: it refuses to start a compiler, or any other such program."""

import os
import sys

PROGRAMS = ("cat", "fc-list", "sh", "sleep", "true", "uname")
"""Beside Python, and scripts that a test puts into its folder; matplotlib asks fc-list, the platform module uname."""
PACKAGES = ("pyosys", "yowasp_")


def refuse(event, arguments):
    if event == "subprocess.Popen":
        program, argv, _, environment = arguments
        if not harmless(os.fspath(program), [str(word) for word in argv[1:]], environment or os.environ):
            stop(program)
    elif event == "os.system":
        stop("sh")
    elif event == "import" and arguments[0].startswith(PACKAGES):
        stop(arguments[0])


def harmless(program, options, environment):
    import shutil
    import tempfile

    place = os.path.realpath(shutil.which(program, path=environment.get("PATH")) or program)
    name = os.path.basename(program)
    asks = len(options) == 1 and options[0].lower().strip("-") in ("version", "v")
    made_here = place.startswith(os.path.realpath(tempfile.gettempdir()) + os.sep)
    return asks or made_here or name.startswith("python") or name in PROGRAMS


def stop(program):
    raise RuntimeError(f"a quick test must start Python alone, not {program!r}; mark it: needs({program!r})")


sys.addaudithook(refuse)
