"""Names that reach C++, Tcl and Verilog."""

from collections.abc import Container
from itertools import count


def identifier(name: str) -> str:
    """Return ``name`` as an identifier that C++, Tcl and Verilog accept."""
    text = "".join(c if c.isascii() and c.isalnum() else "_" for c in name)
    while "__" in text:
        text = text.replace("__", "_")
    text = text.strip("_") or "layer"
    return text if text[0].isalpha() else f"layer_{text}"


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
