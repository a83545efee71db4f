"""How values pass from layer to layer in hls4ml's C++: the two io types, and which suits a network."""

from __future__ import annotations

from flow.errors import ConfigError

IO_TYPES = ("io_stream", "io_parallel")
_LEAVE_OUT = "leave it out to have streams where the network has convs"


def check_io_type(subject: str, io_type: str | None, advice: str = _LEAVE_OUT) -> None:
    """Refuse what is no io type.

    Args:
        subject: who asks, for the message.
        io_type: ``None`` leaves the choice to the network.
        advice: the message's next step.

    Raises:
        ConfigError: it is another text.
    """
    if io_type not in (None, *IO_TYPES):
        raise ConfigError(
            f"{subject}: io_type must be one of {', '.join(IO_TYPES)}, not {io_type!r}; {advice}"
        )


def by_preference(convs: bool) -> tuple[str, ...]:
    """Return both, first what suits the network: a conv's whole image seldom fits in registers."""
    return IO_TYPES if convs else IO_TYPES[::-1]
