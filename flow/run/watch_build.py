"""A program of its own: builds a network, and writes down the files that it was made of.

It reads ``{"source": "package.module:function", "path": [...], "answer": "file"}`` and writes the paths, and whether
the network was built. Python tells every import, and every file that Python code opens; a library that opens files by
itself, in C or Rust, is not seen.
"""

import contextlib
import importlib
import json
import os
import sys
import sysconfig
from pathlib import Path

_STANDARD = tuple(
    os.path.realpath(folder) + os.sep
    for folder in (sysconfig.get_path("stdlib"), Path(__file__).parents[1], "/proc", "/sys", "/dev")
)
_INSTALLED = {"site-packages", "dist-packages"}


def outside(file: str) -> bool:
    """Tell whether a file is nobody's whose version stands for it: an installed package, Python, flow, the system."""
    return not (file.startswith(_STANDARD) or _INSTALLED & set(Path(file).parts))


def watch(source: str) -> dict[str, object]:
    """Return the files that building the network reads, and whether it came to its end."""
    opened: set[str] = set()
    watching = [True]

    def on_event(event: str, arguments: tuple[object, ...]) -> None:
        if watching[0] and event == "open" and isinstance(arguments[0], str | os.PathLike):
            flags = arguments[2]
            if isinstance(flags, int) and flags & os.O_ACCMODE == os.O_RDONLY:
                opened.add(os.path.realpath(os.fspath(arguments[0])))

    with contextlib.suppress(ImportError):
        importlib.import_module("torch")  # what it reads, of the machine, is not the network
    before = set(sys.modules)
    sys.addaudithook(on_event)
    module, _, function = source.partition(":")
    built = False
    with contextlib.suppress(BaseException):
        getattr(importlib.import_module(module), function)()
        built = True
    watching[0] = False
    imported = (getattr(sys.modules[name], "__file__", None) for name in set(sys.modules) - before)
    files = {*opened, *(os.path.realpath(file) for file in imported if file)}
    own = _folder(module.partition(".")[0])
    files = {file for file in files if file.startswith(own) or outside(file)}
    kept = sorted(file for file in files if "__pycache__" not in file and Path(file).is_file())
    return {"files": kept, "built": built}


def _folder(top: str) -> tuple[str, ...]:
    """Return where the network's own package lies, which counts where it is installed, too."""
    found = sys.modules.get(top)
    places = getattr(found, "__path__", None)
    if places is None:
        return (os.path.realpath(getattr(found, "__file__", None) or "/nowhere"),)
    return tuple(os.path.realpath(place) + os.sep for place in places)


def main() -> None:
    given = json.loads(sys.stdin.read())
    sys.path[:] = given["path"]
    sys.stdout = sys.stderr  # what the user's code prints goes to nobody's input
    Path(given["answer"]).write_text(json.dumps(watch(given["source"])), encoding="utf-8")


if __name__ == "__main__":
    main()
