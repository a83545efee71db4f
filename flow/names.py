"""Names that reach C++, Tcl and Verilog."""

import hashlib
import re
from collections.abc import Container, Iterable
from itertools import count

LONGEST = 100
"""Characters of an identifier: with what the flow puts around it, file systems and compilers still take it."""


def identifier(name: str) -> str:
    """Return ``name`` as an identifier that C++, Tcl and Verilog accept; one too long ends with a part of its hash."""
    text = "".join(c if c.isascii() and c.isalnum() else "_" for c in name)
    text = re.sub("_+", "_", text).strip("_") or "layer"
    text = text if text[0].isalpha() else f"layer_{text}"
    if len(text) > LONGEST:
        digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:16]
        text = f"{text[: LONGEST - 17].rstrip('_')}_{digest}"
    return text


def free_name(name: str, taken: Container[str], *, first: int = 1, cased: bool = False) -> str:
    """Return ``name`` if it is free, else ``name_<number>`` with the least number that makes it so.

    Args:
        name: what is wanted.
        taken: the names that are not free, in lower case: hls4ml does not tell upper from lower case.
        first: the least number.
        cased: ``taken`` holds names as they are, and those that differ in case alone are two.
    """
    candidates = (f"{name}_{number}" for number in count(first))
    found = name
    while (found if cased else found.lower()) in taken:
        found = next(candidates)
    return found


class Names:
    """Names that are taken, upper and lower case being no difference; each wish is answered in constant time.

    Args:
        taken: names that are not free from the start.
        first: the least number.
    """

    def __init__(self, taken: Iterable[str] = (), *, first: int = 1) -> None:
        self._taken = {name.lower() for name in taken}
        self._first = first
        self._next: dict[str, int] = {}

    def take(self, name: str) -> str:
        """Return what `free_name` does, which from then on is taken."""
        found = name
        while found.lower() in self._taken:  # as names only ever come, smaller numbers are taken for good
            number = self._next.get(name.lower(), self._first)
            self._next[name.lower()] = number + 1
            found = f"{name}_{number}"
        self._taken.add(found.lower())
        return found
