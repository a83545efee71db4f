"""Names that reach C++, Tcl and Verilog."""


def identifier(name: str) -> str:
    """Return ``name`` as an identifier that C++, Tcl and Verilog accept."""
    text = "".join(c if c.isascii() and c.isalnum() else "_" for c in name)
    while "__" in text:
        text = text.replace("__", "_")
    text = text.strip("_") or "layer"
    return text if text[0].isalpha() else f"layer_{text}"
