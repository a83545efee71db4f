"""The software of a Zynq board: it programs the fabric and drives the network there through an AXI DMA.

The folder is copied into a bundle as ``flow_board``: Python 3.8 and numpy 1.17 are enough, and it imports nothing else
of the project.
"""

from __future__ import annotations

from .driver import Accelerator
from .errors import BoardError, DmaError

__all__ = ["SELFTEST_SCRIPT", "Accelerator", "BoardError", "DmaError"]

SELFTEST_SCRIPT = """\
import sys
from pathlib import Path
sys.path.insert(0, str(Path(__file__).resolve().parent))
from flow_board import selftest
sys.exit(selftest.main())
"""
"""``selftest.py`` of a bundle, beside the package."""
