"""What the estimator takes from the reports of whole designs: layers without products, placed shares, the shell."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from flow.estimate import (
    BLOCK_BITS,
    NAMES,
    Parts,
    Work,
    constant_digits,
    design_cost,
    layer_cost,
    on_board,
    parts,
)
from flow.toolchains.vitis.modules import parse_modules
from flow.toolchains.vitis.reports import parse_csynth_xml, parse_utilization
from flow.types import Report, Resources

SHARED = Path(os.environ.get("FLOW_SHARED", Path(__file__).parents[2] / "shared"))
VENDOR = SHARED / "vendor"
SVHN = VENDOR / "svhn_cnn_xcu250_2020.1"
MLP = VENDOR / "pynq_z2_mlp_2019.2"
IRIS = VENDOR / "pynq_z2_iris_2025.1"
PYTEST = VENDOR / "hls4ml_2020.1/test/pytest/test_report/Vivado"
_SYN = "myproject_prj/solution1/syn/report"
_TOPS = {
    "pruned": SVHN / "pruned_cnn" / _SYN / "myproject_csynth.rpt",
    "quantized": SVHN / "quantized_pruned_cnn" / _SYN / "myproject_csynth.rpt",
    "stream": MLP / "dma_test_pynq_stream/cpp_nn_v3" / _SYN / "myproject_csynth.rpt",
    "parallel": MLP / "dma_test_pynq_ap_fixed/cpp_nn_v2" / _SYN / "myproject_csynth.rpt",
    "pytest": PYTEST / "myproject_csynth.rpt",
    "iris": IRIS / "projeto_iris_hls_ip_axi" / _SYN / "myproject_csynth.rpt",
}


@dataclass(frozen=True)
class Layer:
    """One layer without products in a report: the widths are those of the streams around it."""

    top: str
    module: str
    kind: str
    channels: int
    input_bits: int
    output_bits: int
    window: int = 1
    line_bits: int = 0


LAYERS = (
    Layer("pruned", "relu_config5", "relu", 16, 16, 16),
    Layer("pruned", "relu_config10", "relu", 16, 16, 16),
    Layer("pruned", "relu_config15", "relu", 24, 16, 16),
    Layer("pruned", "relu_config20", "relu", 42, 16, 16),
    Layer("pruned", "relu_config24", "relu", 64, 16, 16),
    Layer("iris", "relu_config3", "relu", 16, 16, 16),
    Layer("quantized", "relu_config4", "rescale", 16, 16, 6),
    Layer("quantized", "relu_config8", "rescale", 16, 16, 6),
    Layer("quantized", "relu_config12", "rescale", 24, 16, 6),
    Layer("quantized", "relu_config17", "rescale", 42, 16, 6),
    Layer("quantized", "relu_config21", "rescale", 64, 16, 6),
    Layer("stream", "relu_config4", "rescale", 64, 16, 7),
    Layer("stream", "relu_config7", "rescale", 32, 16, 7),
    Layer("parallel", "relu_1", "rescale", 64, 16, 7),
    Layer("parallel", "relu_2", "rescale", 32, 16, 7),
    Layer("quantized", "42u_config16", "scale", 42, 16, 16),
    Layer("quantized", "64u_config20", "scale", 64, 16, 16),
    Layer("pruned", "config6", "pool", 16, 16, 16, 4, 30 * 16 * 16),
    Layer("pruned", "config11", "pool", 16, 16, 16, 4, 13 * 16 * 16),
    Layer("pruned", "config16", "pool", 24, 16, 16, 4, 4 * 24 * 16),
    Layer("pruned", "softmax_config27", "softmax", 10, 16, 16),
    Layer("stream", "softmax_config13", "softmax", 5, 16, 16),
    Layer("iris", "softmax_config7", "softmax", 3, 16, 16),
)
_ASSUMED = {"add_bits": 1.0, "table_bits": 1.0, "move_bits": 0.5}
"""Layers that no report shows; an adder takes one LUT a bit."""


def other_constants() -> dict[str, dict[str, float]]:
    """Return the constants of LUTs and flip-flops that dense layers alone do not give: medians, nothing held back."""
    found: dict[str, dict[str, float]] = {}
    ports, fifos = _ports(), _fifos()
    for index, name in enumerate(("luts", "flip_flops")):
        known = {**_ASSUMED, "line_bits": 1 / 32 if name == "luts" else 0.0}
        if name == "luts":
            known |= {"sum_bits": 1.0, "multiplier_bits": _multiplier()}
        known |= {"port_bits": ports[index], "fifo_bits": fifos[index]}
        for kind in dict.fromkeys(layer.kind for layer in LAYERS):
            chosen = [layer for layer in LAYERS if layer.kind == kind]
            known[f"{kind}_bits"] = float(
                np.median(
                    [
                        (getattr(_true(layer), name) - known["line_bits"] * layer.line_bits) / _count(layer)
                        for layer in chosen
                    ]
                )
            )
        found[name] = known
    return found


def other_layers() -> list[tuple[Parts, Resources]]:
    """Return the layers without products, counted and true."""
    return [(_alone(parts(_work(layer), 1, "io_stream"), 1), _true(layer)) for layer in LAYERS]


def _alone(made: Parts, reuse: int) -> Parts:
    """Leave out the FIFO behind a layer, which a report counts with the design."""
    luts, registers = ({k: v for k, v in d.items() if k != "fifo_bits"} for d in (made.luts, made.flip_flops))
    return replace(
        made,
        luts=luts,
        flip_flops=registers,
        blocks=made.blocks if reuse > 1 or "softmax_bits" in luts else 0,
    )


def _work(layer: Layer) -> Work:
    return Work(
        layer.module,
        layer.kind,
        layer.window,
        layer.channels,
        layer.input_bits,
        layer.output_bits,
        weight_bits=16,
        line_bits=layer.line_bits,
    )


def _count(layer: Layer) -> float:
    return parts(_work(layer), 1, "io_stream").luts[f"{layer.kind}_bits"]


def _true(layer: Layer) -> Resources:
    return _module(layer.top, layer.module).resources


def _module(top: str, ending: str) -> Report:
    modules = parse_modules(_TOPS[top])
    names = [name for name in modules if name.removesuffix("_s").endswith(ending)]
    if len(names) != 1:
        raise SystemExit(f"estimator: {_TOPS[top]} must hold one {ending!r}, not {names}")
    return modules[names[0]]


@dataclass(frozen=True)
class Product:
    """One dense or conv layer in a report; ``kept``: the share of its weights that are not zero."""

    top: str
    module: str
    inputs: int
    outputs: int
    input_bits: int
    weight_bits: int
    kept: float
    reuse: int = 1
    positions: int = 1
    scans: int = 1
    line_bits: int = 0


PRODUCT_LAYERS = (
    Product("pruned", "16u_config2", 27, 16, 16, 16, 0.5, 1, 900, 1024, 2 * 32 * 3 * 16),
    Product("pruned", "16u_config7", 144, 16, 16, 16, 0.5, 1, 169, 225, 2 * 15 * 16 * 16),
    Product("pruned", "24u_config12", 144, 24, 16, 16, 0.5, 1, 16, 36, 2 * 6 * 16 * 16),
    Product("pruned", "42u_config17", 96, 42, 16, 16, 0.5),
    Product("pruned", "64u_config21", 42, 64, 16, 16, 0.5),
    Product("pruned", "10u_config25", 64, 10, 16, 16, 1),
    Product("quantized", "16u_config2", 27, 16, 16, 6, 0.5, 1, 900, 1024, 2 * 32 * 3 * 16),
    Product("quantized", "16u_config6", 144, 16, 16, 6, 0.5, 1, 169, 225, 2 * 15 * 16 * 16),
    Product("quantized", "24u_config10", 144, 24, 16, 6, 0.5, 1, 16, 36, 2 * 6 * 16 * 16),
    Product("quantized", "42u_config14", 96, 42, 16, 6, 0.5),
    Product("quantized", "64u_config18", 42, 64, 6, 6, 0.5),
    Product("quantized", "10u_config22", 64, 10, 6, 16, 1),
    Product("stream", "64u_config2", 16, 64, 16, 7, 1, 64),
    Product("stream", "32u_config5", 64, 32, 7, 7, 1, 64),
    Product("stream", "32u_config8", 32, 32, 7, 7, 1, 64),
    Product("stream", "5u_config11", 32, 5, 7, 7, 1, 32),
    Product("parallel", "dense_resource_3", 16, 64, 16, 7, 1, 64),
    Product("parallel", "dense_resource_1", 64, 32, 7, 7, 1, 64),
    Product("parallel", "dense_resource", 32, 32, 7, 7, 1, 64),
    Product("parallel", "dense_resource_2", 32, 5, 7, 7, 1, 32),
    Product("pytest", "5u_config2", 16, 5, 16, 16, 1),
)


def product_layers() -> list[tuple[Product, Parts, Report]]:
    """Return the dense and conv layers of whole designs, counted and true; their weights are drawn."""
    draw = np.random.default_rng(0)
    found = []
    for layer in PRODUCT_LAYERS:
        size = layer.inputs * layer.outputs
        weight = np.rint(draw.uniform(-1, 1, size) * 2 ** (layer.weight_bits - 1)).astype(np.int64)
        digits, wide = constant_digits(weight * (draw.random(size) < layer.kept), layer.input_bits)
        work = Work(
            name=layer.module,
            kind="product",
            inputs=layer.inputs,
            outputs=layer.outputs,
            input_bits=layer.input_bits,
            output_bits=16,
            weight_bits=layer.weight_bits,
            positions=layer.positions,
            scans=layer.scans,
            line_bits=layer.line_bits,
            window=layer.scans > 1,
            digits=digits,
            wide=wide,
        )
        made = parts(work, layer.reuse, "io_parallel" if layer.top == "parallel" else "io_stream")
        found.append((layer, _alone(made, layer.reuse), _module(layer.top, layer.module)))
    return found


def _ports() -> tuple[float, float]:
    """Return LUTs and flip-flops a bit of a streaming dense layer's ports: the layer without its product loop."""
    folder = _TOPS["stream"].parent
    modules = parse_modules(_TOPS["stream"])
    found = []
    for inputs, outputs, bits, config in ((16, 64, 16, 2), (64, 32, 7, 5), (32, 32, 7, 8), (32, 5, 7, 11)):
        whole = next(r for name, r in modules.items() if name.endswith(f"u_config{config}_s")).resources
        inner = parse_csynth_xml(
            folder / f"dense_wrapper_ap_fixed_ap_fixed_16_6_5_3_0_config{config}_s_csynth.xml"
        ).resources
        ports = inputs * bits + outputs * 16
        found.append([(getattr(whole, n) - getattr(inner, n)) / ports for n in ("luts", "flip_flops")])
    luts, flip_flops = np.median(found, axis=0)
    return float(luts), float(flip_flops)


def _multiplier() -> float:
    """Return LUTs a product of two widths of a multiplier in LUTs: 7 x 7 bits with sums of 16, one LUT a bit."""
    found = []
    for name, multipliers in (("dense_resource", 32), ("dense_resource_1", 32), ("dense_resource_2", 5)):
        text = (_TOPS["parallel"].parent / f"{name}_csynth.rpt").read_text(encoding="utf-8")
        used = re.search(r"\|Expression +\|(?: +\S+\|){3} +(\d+)\|", text)
        if used is None:
            raise SystemExit(f"estimator: the report of {name} must hold expressions")
        found.append((int(used.group(1)) / multipliers - 16) / (7 * 7))
    return float(np.median(found))


def _fifos() -> tuple[float, float]:
    """Return LUTs and flip-flops a bit of the FIFOs that lie in LUTs: two designs, the larger."""
    found = []
    for top in (_TOPS["stream"], PYTEST / "myproject_csynth.rpt"):
        text = top.read_text(encoding="utf-8")
        used = re.search(r"\|FIFO +\| +0\| +-\| +(\d+)\| +(\d+)\|", text)
        bits = sum(map(int, re.findall(r"_V_U +\|(?: +\S+\|){5} +(\d+)\|", text)))
        if used is None or not bits:
            raise SystemExit(f"estimator: {top} must hold FIFOs")
        found.append([int(used.group(2)) / bits, int(used.group(1)) / bits])
    luts, flip_flops = np.max(found, axis=0)
    return float(luts), float(flip_flops)


def placed_shares() -> dict[str, float]:
    """Return what Vivado made of C synthesis' estimates: the largest share of all designs, resource by resource."""
    pairs = [
        (parse_csynth_xml(PYTEST / "myproject_csynth.xml").resources, PYTEST / "vivado_synth.rpt"),
        *((_total(_TOPS[name]), SVHN / folder / "vivado_synth.rpt") for name, folder in _SVHN.items()),
    ]
    for kind, folder in (("stream", "cpp_nn_v3"), ("ap_fixed", "cpp_nn_v2"), ("float", "cpp_nn_v2")):
        design = MLP / f"dma_test_pynq_{kind}"
        estimate = parse_csynth_xml(design / folder / _SYN / "csynth.xml").resources
        pairs.append((estimate, _network(design)))
    shares = {}
    for name, attribute in zip(NAMES, ("luts", "flip_flops", "dsps", "bram_bits"), strict=True):
        made = [
            (getattr(before, attribute), getattr(parse_utilization(after), attribute))
            for before, after in pairs
        ]
        shares[name] = max(after / before for before, after in made if before)
    return shares


_SVHN = {"pruned": "pruned_cnn", "quantized": "quantized_pruned_cnn"}


def _network(design: Path) -> Path:
    return next(design.glob("*/*.runs/design_1_myproject_axi_*/*_utilization_synth.rpt"))


def _total(path: Path) -> Resources:
    """Return the totals of a report that has no XML."""
    text = path.read_text(encoding="utf-8")
    found = re.search(r"\|Total +\| +(\d+)\| +(\d+)\| +(\d+)\| +(\d+)\|", text)
    if found is None:
        raise SystemExit(f"estimator: {path} must hold totals")
    blocks, dsps, flip_flops, luts = map(int, found.groups())
    return Resources(luts, flip_flops, dsps, blocks * BLOCK_BITS)


def shell() -> dict[str, float]:
    """Return what DMA and interconnect take: placed designs without their networks, the largest of three."""
    taken = []
    for kind in ("stream", "ap_fixed", "float"):
        design = MLP / f"dma_test_pynq_{kind}"
        placed = parse_utilization(next(design.glob("*/*.runs/impl_1/*_utilization_placed.rpt")))
        network = parse_utilization(_network(design))
        taken.append(
            [
                (getattr(placed, n) or 0) - (getattr(network, n) or 0)
                for n in ("luts", "flip_flops", "dsps", "bram_bits")
            ]
        )
    luts, flip_flops, dsps, bits = np.max(taken, axis=0)
    return {"luts": luts, "flip_flops": flip_flops, "dsps": dsps, "blocks": bits / BLOCK_BITS}


def whole_mlp() -> dict[str, dict[str, list[int]]]:
    """Return a whole network's figures, in the order of `NAMES`, beside those of its reports: the MLP 16-64-32-32-5."""
    found = {}
    for io_type, top, kind in (("io_stream", "stream", "stream"), ("io_parallel", "parallel", "ap_fixed")):
        made = [(work, reuse, layer_cost(work, reuse, io_type)) for work, reuse in _mlp()]
        true = _total(_TOPS[top])
        placed = parse_utilization(
            next((MLP / f"dma_test_pynq_{kind}").glob("*/*.runs/impl_1/*_utilization_placed.rpt"))
        )
        found[io_type] = {
            "predicted": list(design_cost([cost for _, _, cost in made], io_type).amounts()),
            "csynth": _amounts(true),
            "board": [round(amount) for amount in on_board(made)],
            "placed": _amounts(placed),
        }
    return found


def _amounts(resources: Resources) -> list[int]:
    return [
        resources.luts or 0,
        resources.flip_flops or 0,
        resources.dsps or 0,
        (resources.bram_bits or 0) // BLOCK_BITS,
    ]


def _mlp() -> list[tuple[Work, int]]:
    layers = []
    for index, (inputs, outputs, bits, reuse) in enumerate(
        ((16, 64, 16, 64), (64, 32, 7, 64), (32, 32, 7, 64), (32, 5, 7, 32))
    ):
        layers.append((Work(f"fc{index}", "product", inputs, outputs, bits, 16, 7), reuse))
        last = index == 3
        kind, result = ("softmax", 16) if last else ("rescale", 7)
        layers.append((Work(f"{kind}{index}", kind, 1, outputs, 16, result), 1))
    return layers
