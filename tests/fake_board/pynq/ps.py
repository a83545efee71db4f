"""PYNQ's clocks."""


class Clocks:
    """The fabric's clock as the hand-off sets it."""

    fclk0_mhz = 100.0
