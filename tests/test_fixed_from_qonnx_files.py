"""The QONNX and ONNX files of others: each gives what its own execution gives, or is refused at once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from lowered import check
from onnx_files import EXAMPLES, FLOAT_FILES, JETS, needs_examples

from flow import qonnx
from flow.errors import UnsupportedError
from flow.fixed.from_qonnx import lower, lower_with_shapes

FLOAT = (
    "must belong to a quantized network, not to a float one: the file has no Quant node; "
    "take it through the stage quantize"
)


def cleaned(path: Path, folder: Path) -> object:
    """Return a file as `flow.quantize.adopt` makes it fit for qonnx."""
    _, shapes = lower_with_shapes(qonnx.load(path))
    qonnx.clean_named(path, folder / "model.onnx", shapes)
    return qonnx.load(folder / "model.onnx")


@needs_examples
@pytest.mark.parametrize("name", FLOAT_FILES)
def test_a_float_file_is_refused_at_once(name: str) -> None:
    model = qonnx.load(EXAMPLES / f"{name}.onnx")
    first = model.graph.node[0]
    start = time.perf_counter()
    with pytest.raises(UnsupportedError) as error:
        lower(model)
    assert time.perf_counter() - start < 5
    label = first.name or f"{first.op_type}_0"
    assert str(error.value) == f"qonnx: node {label!r} ({first.op_type}) {FLOAT}"


@pytest.mark.slow
@needs_examples
@pytest.mark.parametrize(
    ("name", "samples", "compared"),
    [
        ("bnn_model_fc_1layer", 512, 4),
        ("jets", 512, 9),
        ("branched_model_ch_last", 1, 38),  # 256 x 256 positions
        ("separable_conv_model_ch_last", 1, 10),  # 512 x 512
        ("tiny_unet_ch_last", 1, 116),  # 256 x 256
    ],
)
def test_a_quantized_file_gives_what_qonnx_gives(
    name: str, samples: int, compared: int, tmp_path: Path
) -> None:
    path = JETS if name == "jets" else EXAMPLES / f"{name}.onnx"
    graph, differing = check(cleaned(path, tmp_path), samples=samples)
    assert sum(tensor.source is not None for tensor in graph.tensors.values()) == compared
    assert differing == 0 or name == "jets"  # its Softmax, by one step of 2**-16 at most


@needs_examples
def test_a_quantized_file_is_lowered_at_once() -> None:
    model = qonnx.load(EXAMPLES / "tiny_unet_ch_last.onnx")
    start = time.perf_counter()
    graph = lower(model)
    assert time.perf_counter() - start < 5
    assert graph.tensors[graph.outputs[0]].shape == (256, 256, 2)
