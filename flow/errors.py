"""The four errors of the flow.

Every message reads *subject must be rule, not value; next step*.
"""


class FlowError(Exception):
    """Common base, so that callers can catch every error of the flow at once."""


class ConfigError(FlowError):
    """An option, a file or a folder that the user gave breaks a rule."""


class UnsupportedError(FlowError):
    """The network holds something that the flow cannot handle exactly."""


class ToolError(FlowError):
    """A program is missing, failed, died or ran past its time limit."""


class MismatchError(FlowError):
    """Two results that must be equal differ; ``layers``: what was compared before, for a table."""

    def __init__(self, message: str, layers: tuple[object, ...] = ()) -> None:
        super().__init__(message)
        self.layers = layers


def first_line(error: BaseException) -> str:
    """Return the first line of what another library's or the user's error says, or its type where that is nothing."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
