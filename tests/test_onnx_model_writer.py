"""Writing ONNX: onnxruntime gives torch's numbers, operators are plain, the file is read back as the same network."""

import operator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx_files import execute
from torch import fx, nn

import flow
from flow import network
from flow.errors import ConfigError, MismatchError, UnsupportedError
from flow.onnx_model import read, write, writer

IMAGE = (2, 4, 8, 8)


class Net(nn.Module):
    """A network of its modules and a forward that a function gives."""

    def __init__(self, how, **modules: nn.Module) -> None:  # type: ignore[no-untyped-def]
        super().__init__()
        self.how = how
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.how(self, x)  # type: ignore[no-any-return]


def norm(count: int) -> nn.BatchNorm2d:
    made = nn.BatchNorm2d(count)
    nn.init.normal_(made.weight)
    nn.init.normal_(made.bias)
    made.running_mean.normal_()
    made.running_var.uniform_(0.5, 2)
    return made


def networks() -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    """Return small networks with the shape of their input."""
    torch.manual_seed(0)
    conv = nn.Conv2d
    plain = nn.Sequential(
        conv(4, 6, 3, padding=1), norm(6), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(96, 5)
    )
    residual = Net(lambda s, x: s.r(s.b(s.a(x)) + x), a=conv(4, 4, 3, padding=1), b=norm(4), r=nn.ReLU())
    concat = Net(
        lambda s, x: s.c(torch.cat([s.a(x), s.b(x), x], 1)), a=conv(4, 3, 1), b=conv(4, 2, 1), c=conv(9, 4, 3)
    )
    excite = Net(
        lambda s, x: x * s.s(s.b(s.r(s.a(s.p(x))))),
        p=nn.AdaptiveAvgPool2d(1), a=conv(4, 2, 1), r=nn.ReLU(), b=conv(2, 4, 1), s=nn.Hardsigmoid(),
    )  # fmt: skip
    flat = Net(
        lambda s, x: s.u(s.l(s.f(s.p(x)))) * x,
        p=nn.AdaptiveMaxPool2d(1), f=nn.Flatten(), l=nn.Linear(4, 4), u=nn.Unflatten(1, (4, 1, 1)),
    )  # fmt: skip
    depthwise = nn.Sequential(
        conv(4, 4, 3, groups=4, padding=1), nn.ReLU6(), conv(4, 8, 1), nn.Hardswish(), nn.SiLU()
    )
    transposed = nn.Sequential(
        nn.ConvTranspose2d(4, 3, 3, 2, 1, 1), nn.LeakyReLU(0.1), nn.ConvTranspose2d(3, 3, 2, 2)
    )
    rows = nn.Sequential(
        nn.ZeroPad1d((1, 2)),
        nn.Conv1d(4, 5, 3),
        nn.ELU(),
        nn.MaxPool1d(2),
        nn.ConvTranspose1d(5, 4, 2, 2),
        nn.AvgPool1d(2),
    )
    shuffle = Net(
        lambda s, x: s.b(s.s(s.a(x))),
        a=conv(4, 8, 1, groups=2),
        s=nn.ChannelShuffle(4),
        b=conv(8, 4, 1, groups=4),
    )
    parts = Net(lambda s, x: s.a(x[:, 1:3]) + x.chunk(2, 1)[1], a=conv(2, 2, 1))
    many = nn.Sequential(
        nn.PReLU(4), nn.SELU(), nn.Softplus(), nn.Hardtanh(-0.5, 2.0), nn.Mish(), nn.GELU(), nn.Tanh(), nn.Sigmoid(),
        nn.AvgPool2d(3, 2, 1), nn.Softmax(1), nn.Dropout(0.3), nn.Identity(),
    )  # fmt: skip
    resize = nn.Sequential(
        nn.Upsample(scale_factor=2), nn.ZeroPad2d((1, 0, 2, 1)), nn.Upsample(scale_factor=2, mode="bilinear")
    )
    mlp = nn.Sequential(nn.Linear(7, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3), nn.Softmax(1))
    return {
        "conv": (plain, IMAGE),
        "residual": (residual, IMAGE),
        "concat": (concat, IMAGE),
        "squeeze and excite": (excite, IMAGE),
        "squeeze and excite through dense": (flat, IMAGE),
        "depthwise": (depthwise, IMAGE),
        "transposed": (transposed, IMAGE),
        "1d": (rows, (2, 4, 9)),
        "shuffle": (shuffle, IMAGE),
        "slices": (parts, IMAGE),
        "activations": (many, IMAGE),
        "resize": (resize, IMAGE),
        "mlp": (mlp, (2, 7)),
    }


NETWORKS = networks()


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_that_is_written_and_read_is_the_same(name: str, tmp_path: Path) -> None:
    model, shape = NETWORKS[name]
    path = tmp_path / "model.onnx"
    error = write(model, path, torch.zeros(shape))
    x = torch.randn((5, *shape[1:]), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        want = model.eval()(x.clone())
        got = read(path)(x.clone())
    (executed,) = execute(path, x.numpy())
    largest = float(want.abs().max())
    assert error <= 1e-6
    assert np.abs(executed - want.numpy()).max() <= 1e-6 * largest
    assert float((got - want).abs().max()) <= 1e-6 * largest
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("opset", range(writer.OPSETS[0], writer.OPSETS[1] + 1))
def test_every_opset_gives_torchs_numbers(opset: int, tmp_path: Path) -> None:
    model, shape = NETWORKS["squeeze and excite through dense"]
    whole = nn.Sequential(
        NETWORKS["shuffle"][0], NETWORKS["depthwise"][0], nn.Conv2d(8, 4, 1), model, nn.GELU()
    )
    path = tmp_path / "model.onnx"
    assert write(whole, path, torch.zeros(shape), opset=opset) <= 1e-6
    written = onnx.load(str(path))
    assert [(entry.domain, entry.version) for entry in written.opset_import] == [("", opset)]
    read(path)


@pytest.mark.parametrize("opset", [8, 24, -1])
def test_other_opsets_are_refused(opset: int, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        write(nn.ReLU(), tmp_path / "model.onnx", torch.zeros(1, 3), opset=opset)
    assert str(error.value) == (f"onnx: opset must be from 9 to 23, not {opset}; 13 is read by most programs")


@pytest.mark.parametrize("name", NETWORKS)
def test_the_file_holds_plain_operators_and_a_free_batch_and_no_computed_constants(
    name: str, tmp_path: Path
) -> None:
    model, shape = NETWORKS[name]
    write(model, tmp_path / "model.onnx", torch.zeros(shape))
    written = onnx.load(str(tmp_path / "model.onnx"))
    assert {entry.domain for entry in written.graph.node} == {""}
    assert not {entry.op_type for entry in written.graph.node} & {
        "Constant",
        "Shape",
        "ConstantOfShape",
        "Cast",
        "Gather",
    }
    for value in (*written.graph.input, *written.graph.output):
        batch, *rest = value.type.tensor_type.shape.dim
        assert batch.dim_param == "batch" and all(dim.dim_value > 0 for dim in rest)


def test_several_inputs_and_outputs_survive(tmp_path: Path) -> None:
    graph = fx.Graph()
    a, b = graph.placeholder("a"), graph.placeholder("b")
    total = graph.call_function(operator.add, (a, b))
    graph.output((graph.call_module("act", (total,)), total))
    model = fx.GraphModule(nn.ModuleDict({"act": nn.ReLU()}), graph)
    write(model, tmp_path / "model.onnx", (torch.zeros(1, 3), torch.zeros(1, 3)))
    x, y = torch.randn(4, 3), torch.randn(4, 3)
    got = read(tmp_path / "model.onnx")(x, y)
    assert torch.equal(got[0], (x + y).relu()) and torch.equal(got[1], x + y)


def test_a_network_in_float64_is_written_in_float32_and_stays_as_it_is(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 3)).double()
    before = model[0].weight.clone()
    write(model, tmp_path / "model.onnx", torch.zeros(1, 4))
    assert torch.equal(model[0].weight, before) and model.training
    assert next(read(tmp_path / "model.onnx").parameters()).dtype == torch.float32


LACKING = {
    "adaptive": (
        nn.AdaptiveAvgPool2d(3), 13,
        "layer '0' (AdaptiveAvgPool2d) must, in opset 13, have windows of one size, not (3, 3) windows over (8, 9); "
        "choose an output size that divides",
    ),
    "ceil": (
        nn.AvgPool2d(2, ceil_mode=True), 18,
        "layer '0' (AvgPool2d) must, in opset 18, round its size down, not up; choose opset 19 or newer",
    ),
    "bilinear": (
        nn.Upsample(scale_factor=2, mode="bilinear"), 9,
        "layer '0' (Upsample) must, in opset 9, take the nearest value, not bilinear; choose opset 11 or newer",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LACKING)
def test_what_an_opset_lacks_is_refused(name: str, tmp_path: Path) -> None:
    module, opset, message = LACKING[name]
    with pytest.raises(UnsupportedError) as error:
        write(nn.Sequential(module), tmp_path / "model.onnx", torch.zeros(1, 2, 8, 9), opset=opset)
    assert str(error.value) == f"onnx: {message}"


def test_an_average_pool_that_rounds_up_is_written_in_opset_19(tmp_path: Path) -> None:
    model = nn.Sequential(nn.AvgPool2d(2, ceil_mode=True), nn.MaxPool2d(3, 2, 1, ceil_mode=True))
    write(model, tmp_path / "model.onnx", torch.zeros(1, 2, 9, 7), opset=19)
    x = torch.randn(3, 2, 9, 7)
    assert torch.allclose(read(tmp_path / "model.onnx")(x), model(x), atol=1e-6)


def test_what_the_exporter_lacks_is_refused_in_one_line_and_nothing_is_printed(
    capfd: pytest.CaptureFixture[str],
) -> None:
    x = torch.zeros(1, 2, 8, 9)
    graph = network.trace(nn.Sequential(nn.AdaptiveAvgPool2d(3)), x)
    with pytest.raises(UnsupportedError) as error:
        writer._export(graph, (x,), 13)
    assert str(error.value).startswith(
        "onnx: network must be one that torch exports with opset 13, not fail with "
    )
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_other_numbers_are_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(model: onnx.ModelProto) -> onnx.ModelProto:
        tensor = next(t for t in model.graph.initializer if t.name.endswith("weight"))
        values = onnx.numpy_helper.to_array(tensor) * np.float32(1.00001)
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        return model

    monkeypatch.setattr(writer, "_folded", broken)
    with pytest.raises(
        MismatchError, match="'model.onnx' must give what torch gives, but onnxruntime differs by"
    ):
        write(nn.Sequential(nn.Linear(4, 3)), tmp_path / "model.onnx", torch.zeros(1, 4))
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "none" / "model.onnx"
    with pytest.raises(ConfigError) as error:
        flow.write_onnx(nn.ReLU(), path, torch.zeros(1, 3))
    assert str(error.value) == f"onnx: folder of {str(path)!r} must exist, not be missing; make it first"


def test_the_same_network_gives_the_same_bytes(tmp_path: Path) -> None:
    model, shape = NETWORKS["conv"]
    for name in ("a", "b"):
        write(model, tmp_path / name, torch.zeros(shape))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_layers_keep_their_names(tmp_path: Path) -> None:
    model, shape = NETWORKS["squeeze and excite"]
    write(model, tmp_path / "model.onnx", torch.zeros(shape))
    names = [str(entry.target) for entry, _ in network.weighted(read(tmp_path / "model.onnx"))]
    assert names == ["a", "b"]
