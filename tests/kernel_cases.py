"""Graphs of one node each, for the kernels, and a C++ program that runs the kernels of many of them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from flow.convert.accumulators import Range, partial_sums
from flow.convert.kernels import kernel
from flow.convert.operators import config_struct
from flow.fixed.execute import execute
from flow.fixed.graph import Conv, FixedGraph, Node, Pool, Tensor
from flow.types import FixedPoint

ROOT = Path(__file__).parents[1]
KERNELS = ROOT / "hls_templates" / "cpp" / "kernels"
RNG = np.random.default_rng(20)


@dataclass(frozen=True)
class Case:
    """A graph of one node; ``rows``: integers of each input, (samples, *shape)."""

    name: str
    graph: FixedGraph
    rows: tuple[np.ndarray, ...]
    reuse: int = 1

    @property
    def node(self) -> Node:
        return self.graph.nodes[0]

    @property
    def expected(self) -> np.ndarray:
        """What the integer executor gives, (samples, values)."""
        return execute(self.graph, self.rows)["y"].reshape(len(self.rows[0]), -1)


def fixed(text: str) -> FixedPoint:
    """Return a type by its text: ``s8.3`` is signed, 8 bits, 3 of them of the fraction."""
    width, fraction = map(int, text[1:].split("."))
    return FixedPoint(text[0] == "s", width - fraction, fraction)


def rows(dtype: FixedPoint, shape: tuple[int, ...], samples: int = 24) -> np.ndarray:
    """Return random integers; the first samples are all at one end, all 0, at both ends in turn, every one in turn."""
    low, high = dtype.minimum_lsb, dtype.maximum_lsb
    made = RNG.integers(low, high, (samples, *shape), endpoint=True)
    made[0], made[1], made[2] = low, high, 0
    flat = made.reshape(samples, -1)
    flat[3] = np.where(np.arange(flat.shape[1]) % 2, low, high)
    flat[4] = RNG.choice([-1, 0, 1], flat.shape[1]).clip(low, high)
    if 1 << dtype.width <= flat[5:].size:
        flat[5:].flat[: 1 << dtype.width] = np.arange(low, high + 1)
    return made


def case(
    name: str, kind: type[Node], inputs: Sequence[tuple[str, tuple[int, ...]]], output: tuple[str, tuple[int, ...]],
    /, *, reuse: int = 1, samples: int = 24, **fields: Any,
) -> Case:  # fmt: skip
    """Return the case of a node; inputs and output by their types and shapes."""
    tensors = tuple(Tensor(f"x{i}", shape, fixed(text)) for i, (text, shape) in enumerate(inputs))
    made = Tensor("y", output[1], fixed(output[0]))
    node = kind("node", tuple(tensor.name for tensor in tensors), made, **fields)
    given = tuple(rows(tensor.dtype, tensor.shape, samples) for tensor in tensors)
    return Case(name, FixedGraph(tensors, (node,), ("y",)), given, reuse)


def windowed(
    name: str, made: Callable[[tuple[int, ...]], Case], shape: tuple[int, ...], kernel: tuple[int, ...],
    strides: tuple[int, ...], pads: tuple[tuple[int, int], ...], dilations: tuple[int, ...] | None = None,
) -> Case:  # fmt: skip
    sizes = tuple(
        (size + sum(pad) - (k - 1) * d - 1) // stride + 1
        for size, k, stride, pad, d in zip(
            shape, kernel, strides, pads, dilations or (1,) * len(kernel), strict=False
        )
    )
    return replace(made(sizes), name=name)


def pool(name: str, kind: str, source: str, shape: tuple[int, ...], kernel: tuple[int, ...],
         strides: tuple[int, ...], pads: tuple[tuple[int, int], ...]) -> Case:  # fmt: skip
    dtype = fixed(source)
    count = int(np.prod(kernel)) if kind == "sum" else 1
    wide = Range(dtype.minimum_lsb * count, dtype.maximum_lsb * count, dtype.fraction_bits).dtype()

    def made(sizes: tuple[int, ...]) -> Case:
        text = f"{'us'[wide.signed]}{wide.width}.{wide.fraction_bits}"
        return case(name, Pool, [(source, shape)], (text, (*sizes, shape[-1])), kind=kind, kernel=kernel,
                    strides=strides, pads=pads)  # fmt: skip

    return windowed(name, made, shape, kernel, strides, pads)


def conv(
    name: str, source: str, shape: tuple[int, ...], filters: int, kernel: tuple[int, ...], strides: tuple[int, ...],
    pads: tuple[tuple[int, int], ...], dilations: tuple[int, ...], groups: int = 1, weights: str = "s4.3",
    bias: str | None = "s9.6", reuse: int = 1,
) -> Case:  # fmt: skip
    weight_dtype = fixed(weights)
    weight = rows(weight_dtype, (filters, *kernel, shape[-1] // groups), 8)[7]
    weight.flat[0] = weight_dtype.minimum_lsb
    fields: dict[str, Any] = {
        "weight": weight, "weight_dtype": weight_dtype, "strides": strides, "pads": pads, "dilations": dilations,
        "groups": groups,
    }  # fmt: skip
    if bias is not None:
        fields |= {"bias": rows(fixed(bias), (filters,), 8)[7], "bias_dtype": fixed(bias)}

    def made(sizes: tuple[int, ...]) -> Case:
        guess = case(name, Conv, [(source, shape)], ("s1.0", (*sizes, filters)), reuse=reuse, **fields)
        node = guess.node
        assert isinstance(node, Conv)
        dtype = partial_sums(node, fixed(source)).dtype()
        exact = replace(node, output=replace(node.output, dtype=dtype))
        return replace(guess, graph=replace(guess.graph, nodes=(exact,)))

    return windowed(name, made, shape, kernel, strides, pads, dilations)


def run(
    cases: Sequence[Case], work: Path, headers: Path, *options: str
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Compile one program and return what it gives for every case: from arrays, and from streams."""
    work.mkdir(parents=True, exist_ok=True)
    source = work / "kernels.cpp"
    source.write_text(program(cases), encoding="utf-8")
    includes = [f"-I{folder}" for folder in (headers, nnet_utils().parent, nnet_utils(), KERNELS)]
    command = ["g++", *options, "-w", *includes, str(source), "-o", str(work / "kernels")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:4000]
    frames = [np.concatenate([x.reshape(len(x), -1) for x in one.rows], axis=1) for one in cases]
    np.concatenate([frame.reshape(-1) for frame in frames]).astype(np.int64).tofile(work / "inputs.bin")
    done = subprocess.run(
        [work / "kernels", "inputs.bin", "outputs.bin"], cwd=work, capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr[:4000]
    values = np.fromfile(work / "outputs.bin", np.int64)
    results = []
    for one in cases:
        size = len(one.rows[0]) * one.node.output.size
        both = values[: 2 * size].reshape(len(one.rows[0]), 2, -1)
        results.append((both[:, 0], both[:, 1]))
        values = values[2 * size :]
    assert len(values) == 0
    return results


def nnet_utils() -> Path:
    """Return the folder of hls4ml's own headers."""
    import hls4ml

    return Path(hls4ml.__file__).parent / "templates" / "vivado" / "nnet_utils"


HEAD = """
#include <cstdio>
#include <cstdlib>
#include "ap_fixed.h"
#include "ap_int.h"
#include "hls_stream.h"
#include "nnet_types.h"
#include "concat.h"
#include "conv.h"
#include "elementwise.h"
#include "pool.h"
#include "upsample.h"
#include "vector.h"

static FILE *inputs, *outputs;
template <class T> void load(T *values, unsigned size) {
    for (unsigned i = 0; i < size; i++) {
        long long lsb;
        if (std::fread(&lsb, 8, 1, inputs) != 1)
            std::exit(1);
        values[i] = flow_kernels::value_of<T>(lsb);
    }
}
template <class T> void save(const T *values, unsigned size) {
    for (unsigned i = 0; i < size; i++) {
        const long long lsb = flow_kernels::lsb_of(values[i]);
        std::fwrite(&lsb, 8, 1, outputs);
    }
}
template <class T, unsigned C> void send(const T *values, unsigned size, hls::stream<nnet::array<T, C>> &to) {
    for (unsigned i = 0; i < size; i += C) {
        nnet::array<T, C> token;
        for (unsigned c = 0; c < C; c++)
            token[c] = values[i + c];
        to.write(token);
    }
}
template <class T, unsigned C> void receive(hls::stream<nnet::array<T, C>> &from, T *values, unsigned size) {
    for (unsigned i = 0; i < size; i += C) {
        if (from.empty())
            std::exit(2);
        const nnet::array<T, C> token = from.read();
        for (unsigned c = 0; c < C; c++)
            values[i + c] = token[c];
    }
}
"""


def cpp_type(dtype: FixedPoint) -> str:
    return f"ap_{dtype}"


def program(cases: Sequence[Case]) -> str:
    """Return a program that reads frames of all cases and writes what arrays and streams give."""
    parts = [HEAD]
    for number, one in enumerate(cases):
        parts.append(_case(number, one))
    calls = "\n".join(
        f"    for (int i = 0; i < {len(one.rows[0])}; i++)\n        case_{number}();"
        for number, one in enumerate(cases)
    )
    end = "    return std::fgetc(inputs) == EOF && std::fclose(outputs) == 0 ? 0 : 3;"
    opened = '    inputs = std::fopen(argv[1], "rb");\n    outputs = std::fopen(argv[2], "wb");'
    return "\n".join([*parts, f"int main(int, char **argv) {{\n{opened}\n{calls}\n{end}\n}}\n"])


def _case(number: int, one: Case) -> str:
    made = kernel(one.node, one.graph)
    lines = (*made.config, *([f"static const unsigned reuse_factor = {one.reuse};"] if made.weights else []))
    weights, text = [], []
    for name, (values, dtype) in made.weights.items():
        numbers = ", ".join(f"{value!r}" for value in values.reshape(-1).tolist())
        text.append(f"static {cpp_type(dtype)} {name}_{number}[{values.size}] = {{{numbers}}};")
        weights.append(f"{name}_{number}")
    text.append(config_struct(f"config_{number}", lines))
    tensors = [*one.graph.inputs, one.node.output]
    types = [cpp_type(tensor.dtype) for tensor in tensors]
    arrays = [f"nnet::array<{kind}, {tensor.shape[-1]}>" for kind, tensor in zip(types, tensors, strict=True)]
    names = [*(f"x{i}" for i in range(len(one.graph.inputs))), "y"]
    body = [f"static {kind} {name}[{t.size}];" for kind, name, t in zip(types, names, tensors, strict=True)]
    body += [f'hls::stream<{kind}> s_{name}("{name}");' for kind, name in zip(arrays, names, strict=True)]
    given = list(zip(names, tensors, strict=True))[:-1]
    body += [f"load({name}, {tensor.size});" for name, tensor in given]
    call = made.call.replace("{weights}", ", ".join(weights)).replace("{config}", f"config_{number}")
    size = one.node.output.size
    sizes = ", ".join(str(tensor.size) for tensor in tensors[:-1])

    def called(types: list[str], *names: str) -> str:
        inputs_t, inputs = ", ".join(types[:-1]), ", ".join(names[:-1])
        return call.format(
            inputs_t=inputs_t, output_t=types[-1], inputs=inputs, output=names[-1], sizes=sizes
        )

    body += [called(types, *names), f"save(y, {size});"]
    body += [f"send({name}, {tensor.size}, s_{name});" for name, tensor in given]
    body += [called(arrays, *(f"s_{name}" for name in names))]
    body += [f"receive(s_y, y, {size});", f"save(y, {size});"]
    left = " || ".join(f"!s_{name}.empty()" for name in names)
    body.append(f"if ({left})\n        std::exit(4);")
    inside = "\n".join(f"    {line}" for line in body)
    return "\n".join([*text, f"static void case_{number}() {{\n{inside}\n}}\n"])
