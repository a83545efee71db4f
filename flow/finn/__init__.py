"""FINN: does finn-plus take a quantized network, is it still the same, and what does it estimate?"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flow.build.plan import run
from flow.errors import ConfigError, MismatchError, ToolError
from flow.files import json_text
from flow.types import Command, Plan, Progress, silent

if TYPE_CHECKING:
    import numpy as np

    from flow.finn.prepare import Prepared

VERSION = "1.6.1"
VARIABLE = "FLOW_FINN_PYTHON"
"""Names the Python of the environment that finn-plus lives in: its pins clash with the flow's."""
REQUIREMENTS = Path(__file__).with_name("requirements.txt")


@dataclass(frozen=True)
class FinnStep:
    """One of FINN's build steps.

    ``status`` is ``accepted`` or ``refused``; ``max_error`` the largest difference of the outputs from those before
    FINN, None where FINN cannot execute the graph without the vendor's simulators.
    """

    name: str
    status: str
    reason: str = ""
    max_error: float | None = None


@dataclass(frozen=True)
class FinnLayer:
    """One of FINN's hardware layers and the layer of the network that it works for; cycles are for one sample."""

    layer: str
    name: str
    cycles: int
    luts: int
    dsps: int
    bram18: int


@dataclass(frozen=True)
class FinnReport:
    """What FINN said.

    ``host``: operators that FINN leaves to the processor; ``max_cycles``: of the slowest layer, so that the clock's
    rate over it is the rate of samples.
    """

    steps: tuple[FinnStep, ...]
    layers: tuple[FinnLayer, ...]
    host: tuple[str, ...]
    samples: int
    max_error: float | None
    max_cycles: int | None

    @property
    def accepted(self) -> bool:
        """Tell whether every step accepted."""
        return all(step.status == "accepted" for step in self.steps)

    def values(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return asdict(self) | {"accepted": self.accepted}


def interpreter() -> Path | None:
    """Return the Python of FINN's environment, or None where there is none."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named and Path(named).is_file() else None


def installed() -> tuple[str, Path] | None:
    """Return the version of finn-plus and its Python, or None; nothing is started."""
    python = interpreter()
    if python is None:
        return None
    found = sorted(python.parent.parent.glob("lib/python*/site-packages/finn_plus-*.dist-info"))
    return (found[-1].name.removesuffix(".dist-info").split("-")[1], python) if found else None


def require_environment() -> Path:
    """Return the Python of FINN's environment.

    Raises:
        ToolError: there is none.
    """
    found = installed()
    if found is None:
        raise ToolError(
            f"finn: {VARIABLE} must name the Python of an environment with finn-plus, not "
            f"{os.environ.get(VARIABLE)!r}; docs/finn.md says how to make one (flow finn --requirements)"
        )
    return found[1]


def finn(
    onnx: Path,
    *,
    out: Path,
    part: str,
    clock_period_ns: float = 10.0,
    target_fps: int | None = None,
    folding: Path | None = None,
    standalone_thresholds: bool = True,
    inputs: np.ndarray | None = None,
    samples: int = 32,
    seed: int = 0,
    timeout_s: float = 1800,
    progress: Progress = silent,
) -> FinnReport:
    """Hand a QONNX file to finn-plus: its build steps up to its estimates, and the outputs before and after.

    Args:
        onnx: the file of the stage quantize.
        out: a folder, made if it is missing; FINN's graph after each step goes there.
        part: FPGA part, FINN's ``fpga_part``.
        clock_period_ns: FINN's ``synth_clk_period_ns``.
        target_fps: samples a second to fold for; None: one multiplier a layer, or what ``folding`` says.
        folding: FINN's ``folding_config_file``.
        standalone_thresholds: thresholds as layers of their own, which lets FINN take its RTL multipliers.
        inputs: float32 (samples, ...) in the network's layout, to compare on beside the random ones.
        samples: random inputs to compare on: uniform over the input's integers, the first two at its ends.
        seed: of the random inputs.
        timeout_s: limit, in seconds.
        progress: called once a step.

    Raises:
        ConfigError: ``samples`` is below 2, or the file cannot be read.
        ToolError: FINN's environment is missing, or its program fails.
        UnsupportedError: the network cannot be given to FINN exactly.
        MismatchError: a step of FINN changes the outputs.
    """
    import numpy as np

    from flow.finn.prepare import prepare

    if samples < 2:
        raise ConfigError(f"finn: samples must be at least 2, not {samples}; raise it")
    python = require_environment()
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    prepared = prepare(onnx, out / "prepared.onnx")
    codes, expected = _reference(onnx, prepared, inputs, samples, seed)
    np.save(out / "inputs.npy", codes)
    np.save(out / "expected.npy", expected)
    request = {
        "prepared": "prepared.onnx",
        "part": part,
        "clock_period_ns": clock_period_ns,
        "target_fps": target_fps,
        "folding": str(folding.resolve()) if folding else None,
        "standalone_thresholds": standalone_thresholds,
        **asdict(prepared),
    }
    worker = Path(__file__).with_name("worker.py")
    plan = Plan(
        files={"request.json": json_text(request) + "\n"},
        # -P: the worker's folder must not hide FINN's packages
        commands=(Command((str(python), "-P", str(worker)), "finn.log"),),
        products=("result.json",),
    )

    def line(text: str) -> None:
        if text.startswith("step: "):
            progress(0, 1, text.removeprefix("step: "))

    (out / "result.json").unlink(missing_ok=True)
    (result,) = run(
        plan, out, subject="finn", timeout_s=timeout_s, on_line=line, env={"OMP_NUM_THREADS": "1"}
    )
    return _report(json.loads(result.read_text(encoding="utf-8")), out)


def _reference(
    onnx: Path, prepared: Prepared, inputs: np.ndarray | None, samples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return integers for FINN's input and the outputs of the file before FINN, both float32."""
    import numpy as np

    from flow import qonnx

    model = qonnx.load(onnx)
    shape = model.get_tensor_shape(model.graph.input[0].name)[1:]
    bits = int(prepared.input_type.lstrip("UINT"))
    low, high = (
        (0, 2**bits - 1) if prepared.input_type.startswith("U") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    )
    codes = (
        np.random.default_rng(seed).integers(low, high, (samples, *shape), endpoint=True).astype(np.float32)
    )
    codes[0], codes[1] = low, high
    if inputs is not None:
        codes = np.concatenate(
            [codes, np.clip(np.rint(inputs / prepared.input_lsb), low, high).astype(np.float32)]
        )
    expected = qonnx.execute(model, codes * np.float32(prepared.input_lsb))
    return (np.moveaxis(codes, 1, -1) if prepared.channels_last else codes), expected


def _report(result: Mapping[str, Any], out: Path) -> FinnReport:
    """Return the worker's result.

    Raises:
        MismatchError: a step changed the outputs.
    """
    steps = tuple(FinnStep(**step) for step in result["steps"])
    for step in steps:
        if step.max_error:
            raise MismatchError(
                f"finn: {step.name} must leave the outputs as they were, not change them by {step.max_error:g}; "
                f"its graph is {out / step.name}.onnx"
            )
    layers = tuple(FinnLayer(**layer) for layer in result["layers"])
    return FinnReport(
        steps=steps,
        layers=layers,
        host=tuple(result["host"]),
        samples=result["samples"],
        max_error=result["max_error"],
        max_cycles=max((layer.cycles for layer in layers), default=None),
    )
