"""Simplify on what real networks are made of, and at the ends: whole layers, branches and outputs that die."""

from __future__ import annotations

import networks
import pytest
import torch
from networks import Forward, fill, kinds, lively
from simplified import IMAGE, PADDED, small, widths
from torch import nn

from flow.errors import UnsupportedError
from flow.network.tracing import tensors_of
from flow.simplify import TOLERANCE, simplify

OTHER_SIZE = (2, 2, 9, 8)


def rows(layer: nn.Module) -> list[int]:
    return list(range(len(layer.weight)))


# ---------------------------------------------------------------- branches that die


def test_a_residual_branch_that_is_zero_disappears():
    model = networks.residual()
    fill(model.b, rows(model.b), 0, 0)
    result = small(model, IMAGE, OTHER_SIZE)
    assert kinds(result.model) == ["Conv2d", "ReLU", "AdaptiveAvgPool2d", "Flatten", "Linear"]
    assert widths(result) == {"stem": (2, 4), "fc": (4, 3)}


def test_a_residual_branch_that_is_constant_becomes_one_addition_a_channel():
    model = networks.residual()
    fill(model.b, rows(model.b), 0, 0.3)
    result = small(model, IMAGE, OTHER_SIZE)
    assert kinds(result.model)[2] == "Conv2d" and "add" not in kinds(result.model)
    assert [(c.inputs, c.outputs, c.parameters) for c in result.after][1] == (4, 4, 8)


def test_a_constant_branch_moves_into_the_layer_on_the_other_side():
    model = lively(
        Forward(
            lambda net, x: net.out(torch.relu(net.left(x) + net.right(x))),
            left=nn.Conv2d(2, 4, 1, bias=False),
            right=nn.Conv2d(2, 4, 1),
            out=nn.Conv2d(4, 2, 3),
        )
    )
    fill(model.right, rows(model.right), 0, 0.6)
    result = small(model, IMAGE, OTHER_SIZE)
    assert kinds(result.model) == ["Conv2d", "ReLU", "Conv2d"]
    assert result.model.get_submodule("left").bias.tolist() == [0.6] * 4


def test_a_dead_side_of_a_concatenation_leaves():
    model = networks.branches()
    fill(model.left, rows(model.left), 0, -1)
    result = small(model, IMAGE, OTHER_SIZE)
    assert kinds(result.model) == ["Conv2d", "ReLU", "Conv2d"]
    assert widths(result) == {"right": (2, 2), "out": (2, 2)}


def test_a_dead_chain_leaves_a_concatenation_as_a_whole():
    model = lively(
        Forward(
            lambda net, x: net.out(torch.cat([net.b(torch.relu(net.a(x))), x, net.c(x)], 1)),
            a=nn.Conv2d(2, 5, 3, padding=1),
            b=nn.Conv2d(5, 3, 3, padding=1),
            c=nn.Conv2d(2, 2, 1),
            out=nn.Conv2d(7, 2, 3),
        )
    )
    fill(model.b, rows(model.b), 0, 0.5)
    assert widths(small(model, IMAGE, OTHER_SIZE)) == {"c": (2, 2), "out": (4, 2)}


def test_a_slice_of_a_concatenation_follows_when_a_side_leaves():
    model = lively(
        Forward(
            lambda net, x: net.out(torch.cat([net.a(x), net.b(x)], 1)[:, 3:]),
            a=nn.Conv2d(2, 3, 1),
            b=nn.Conv2d(2, 3, 1),
            out=nn.Conv2d(3, 2, 3),
        )
    )
    result = small(model, IMAGE, OTHER_SIZE)
    assert widths(result) == {"b": (2, 3), "out": (3, 2)}


@pytest.mark.parametrize("head", [nn.Identity(), nn.Softmax(1), nn.LogSoftmax(1)])
def test_a_network_that_becomes_constant_says_so(head):
    model = lively(nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.Flatten(), head))
    fill(model[0], rows(model[0]), 0, 0.4)
    result = small(model)
    assert widths(result) == {"0": (2, 1), "2": (1, 3)}
    if isinstance(head, nn.Identity):
        assert result.kept["output"] == "it is constant: it no longer depends on the input"


def test_one_surviving_channel_is_enough():
    model = networks.cnn().double()
    for layer in model.children():
        if isinstance(layer, nn.Conv2d):
            fill(layer, rows(layer)[1:], 0, 0)
    result = small(model, torch.zeros(2, 1, 6, 6))
    assert min(cost.outputs for cost in result.after) == 1


# ---------------------------------------------------------------- squeeze-excite


def excite(gate: nn.Module) -> nn.Module:
    """Return conv ``a``, a gate of ``squeeze`` and ``excite`` on its channels, conv ``out``."""

    def forward(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(net.a(x))
        scale = net.gate(net.excite(torch.relu(net.squeeze(net.pool(y)))))
        return net.out(y * scale)

    layers = {
        "squeeze": nn.Conv2d(6, 3, 1),
        "excite": nn.Conv2d(3, 6, 1),
        "out": nn.Conv2d(6, 2, 3, padding=1),
    }
    pool = nn.AdaptiveAvgPool2d(1)
    return lively(Forward(forward, a=nn.Conv2d(2, 6, 3, padding=1), pool=pool, gate=gate, **layers))


@pytest.mark.parametrize("gate", [nn.Sigmoid(), nn.Hardsigmoid()])
def test_a_gate_shrinks_with_the_channels_that_it_scales(gate):
    model = excite(gate)
    fill(model.a, [0, 2, 5], 0, -1)
    fill(model.squeeze, [1], 0, 0.4)
    assert widths(small(model, IMAGE, OTHER_SIZE)) == {
        "a": (2, 3),
        "squeeze": (3, 2),
        "excite": (2, 3),
        "out": (3, 2),
    }


def test_a_gate_that_is_constant_becomes_a_scale():
    model = excite(nn.Sigmoid())
    fill(model.excite, rows(model.excite), 0, 0.7)
    result = small(model, IMAGE, OTHER_SIZE)
    assert "mul" not in kinds(result.model) and "Sigmoid" not in kinds(result.model)


def test_a_gate_of_dense_layers_shrinks():
    def forward(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        y = net.a(x)
        scale = torch.sigmoid(net.fc(net.pool(y).flatten(1)))
        return net.out(y * scale.view(-1, 4, 1, 1))

    layers = {"pool": nn.AdaptiveAvgPool2d(1), "fc": nn.Linear(4, 4), "out": nn.Conv2d(4, 2, 1)}
    model = lively(Forward(forward, a=nn.Conv2d(2, 4, 3), **layers))
    fill(model.a, [1], 0, 0)
    assert widths(small(model, IMAGE, OTHER_SIZE)) == {"a": (2, 3), "fc": (3, 3), "out": (3, 2)}


# ---------------------------------------------------------------- layers of other kinds


def test_a_transposed_conv_shrinks_at_both_ends():
    model = lively(
        nn.Sequential(
            nn.Conv2d(2, 5, 3), nn.ReLU(), nn.ConvTranspose2d(5, 4, 3, stride=2), nn.Conv2d(4, 2, 1)
        )
    )
    fill(model[0], [0, 3], 0, -1)
    with torch.no_grad():
        model[2].weight[:, [1, 2]] = 0
    assert widths(small(model, IMAGE, OTHER_SIZE)) == {"0": (2, 3), "2": (3, 2), "3": (2, 2)}


def test_one_constant_stands_for_all_before_a_transposed_conv():
    model = lively(
        nn.Sequential(nn.Conv2d(2, 5, 3), nn.ReLU(), nn.ConvTranspose2d(5, 4, 3, stride=2, padding=1))
    )
    fill(model[0], [0, 3], 0, 0.9)
    fill(model[0], [1], 0, 0.2)
    result = small(model, IMAGE, OTHER_SIZE)
    assert widths(result) == {"0": (2, 3), "2": (3, 4)}
    assert result.kept["2"] == f"1 {PADDED}"


def test_a_norm_fuses_into_a_transposed_conv():
    model = lively(nn.Sequential(nn.ConvTranspose2d(2, 4, 3, groups=2, bias=False), nn.BatchNorm2d(4)))
    assert kinds(small(model).model) == ["ConvTranspose2d"]


@pytest.mark.parametrize(
    "layer",
    [nn.PReLU(4), nn.PReLU(), nn.Hardswish(), nn.SiLU(), nn.ELU(), nn.Softplus(), nn.GELU(), nn.Hardtanh()],
)
def test_constants_pass_every_activation(layer):
    model = lively(nn.Sequential(nn.Conv2d(2, 4, 3), layer, nn.Conv2d(4, 3, 2)))
    fill(model[0], [0, 2], 0, -0.8)
    result = small(model, IMAGE, OTHER_SIZE)
    assert widths(result) == {"0": (2, 2), "2": (2, 3)}


def test_a_conv_with_several_filters_a_channel_shrinks_by_whole_channels():
    model = lively(
        nn.Sequential(nn.Conv2d(2, 3, 1), nn.ReLU(), nn.Conv2d(3, 6, 3, groups=3), nn.Conv2d(6, 2, 1))
    )
    fill(model[0], [1], 0, -1)
    fill(model[2], [2, 3], 0, 0.4)
    assert widths(small(model, IMAGE, OTHER_SIZE)) == {"0": (2, 2), "2": (2, 4), "3": (4, 2)}


def test_groups_that_lost_different_channels_share_larger_ones():
    layers = [nn.Conv2d(2, 16, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, groups=4, padding=1), nn.ReLU()]
    model = lively(nn.Sequential(*layers, nn.Conv2d(16, 16, 1), nn.Conv2d(16, 2, 1)))
    fill(model[0], [4, 5, 6, 12, 13, 14], 0, -1)
    fill(model[2], [4, 5, 6, 12, 13, 14], 0, -1)
    result = small(model, IMAGE, OTHER_SIZE)
    assert result.model.get_submodule("2").groups == 2
    assert widths(result)["2"] == (10, 10)


def test_two_grouped_convs_in_a_row_agree_on_the_order():
    layers = [nn.Conv2d(2, 12, 1), nn.Conv2d(12, 12, 3, groups=4), nn.ReLU(), nn.Conv2d(12, 12, 3, groups=6)]
    model = lively(nn.Sequential(*layers, nn.Conv2d(12, 2, 1)))
    for index, dead in ((0, [0, 1, 5, 9]), (1, [0, 1, 7]), (3, [2, 3, 8])):
        fill(model[index], dead, 0, -1)
    small(model, IMAGE, OTHER_SIZE)


def test_shuffled_channels_leave_where_the_rest_shuffles_alike():
    def forward(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        left, right = net.shuffle(torch.cat([net.a(x), net.b(x)], 1)).chunk(2, dim=1)
        return net.out(torch.cat([left, net.c(right)], 1))

    model = lively(
        Forward(
            forward,
            a=nn.Conv2d(2, 4, 1),
            b=nn.Conv2d(2, 4, 1),
            shuffle=nn.ChannelShuffle(2),
            c=nn.Conv2d(4, 4, 1),
            out=nn.Conv2d(8, 3, 1),
        )
    )
    fill(model.a, [0, 3], 0, 0.5)
    fill(model.b, [0, 2], 0, 0.5)
    result = small(model, IMAGE, OTHER_SIZE)
    assert widths(result) == {"a": (2, 3), "b": (2, 3), "c": (4, 4), "out": (6, 3)}


# ---------------------------------------------------------------- layers that are used twice


def twice(padding: int = 0) -> nn.Module:
    """Return conv ``a``, then conv ``shared`` and a ReLU, twice over, then ``out``."""

    def forward(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(net.shared(torch.relu(net.a(x))))
        return net.out(torch.relu(net.shared(y)))

    shared = nn.Conv2d(4, 4, 1 + 2 * padding, padding=padding)
    return lively(Forward(forward, a=nn.Conv2d(2, 4, 1), shared=shared, out=nn.Conv2d(4, 2, 1)))


def test_a_shared_layer_shrinks_where_all_of_its_uses_agree():
    model = twice()
    for layer in (model.a, model.shared):
        fill(layer, [1, 3], 0, -0.5)
    result = small(model, IMAGE, OTHER_SIZE)
    assert widths(result) == {"a": (2, 2), "shared": (2, 2), "out": (2, 2)}
    assert len(list(result.model.children())) == len({id(m) for m in result.model.children()})


@pytest.mark.parametrize("padding", [0, 1])
def test_a_shared_layer_keeps_constants_that_differ_between_its_uses(padding):
    model = twice(padding)
    fill(model.a, [1], 0, 0.5)
    fill(model.shared, [1], 0, 0.7)
    assert widths(small(model, IMAGE, OTHER_SIZE))["shared"] == (4, 4)


def test_a_shared_norm_is_not_fused():
    model = lively(
        Forward(
            lambda net, x: net.norm(net.b(torch.relu(net.norm(net.a(x))))),
            a=nn.Conv2d(2, 3, 1),
            b=nn.Conv2d(3, 3, 1),
            norm=nn.BatchNorm2d(3),
        )
    )
    assert kinds(small(model).model).count("BatchNorm2d") == 2


# ---------------------------------------------------------------- several inputs and outputs


def test_several_inputs_and_outputs_keep_their_order_and_shapes():
    def forward(net: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
        y = torch.relu(net.a(x))
        return {"image": net.b(y), "classes": net.fc(torch.flatten(net.pool(y), 1))}

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers = {"a": nn.Conv2d(2, 5, 3, padding=1), "b": nn.Conv2d(5, 2, 1), "fc": nn.Linear(5, 3)}
            self.net = Forward(forward, pool=nn.AdaptiveMaxPool2d(1), **layers)
            self.side = nn.Conv2d(3, 2, 1)

        def forward(self, x: torch.Tensor, z: torch.Tensor) -> dict[str, torch.Tensor]:
            return self.net(x + self.side(z))

    model = lively(Two())
    fill(model.net.a, [1, 4], 0, 0.5)
    before = networks.state(model)
    x, z = torch.randn(3, 2, 6, 5).double(), torch.randn(3, 3, 6, 5).double()
    result = simplify(model, (x, z), samples=8)
    networks.assert_untouched(model, before)
    for want, got in zip(tensors_of(model(x, z)), tensors_of(result.model(x, z)), strict=True):
        assert want.shape == got.shape
        assert float((want - got).detach().abs().max()) < TOLERANCE * float(want.detach().abs().max())
    assert widths(result) == {"side": (3, 2), "net.a": (2, 3), "net.b": (3, 2), "net.fc": (3, 3)}


def test_what_mixes_channels_in_another_way_is_refused():
    with pytest.raises(UnsupportedError) as caught:
        simplify(nn.Sequential(nn.Conv2d(2, 4, 1), nn.GroupNorm(2, 4)), IMAGE)
    assert str(caught.value).startswith("model: layer '1' (GroupNorm) is not supported; supported layers: ")
