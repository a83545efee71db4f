"""Simplify: really smaller, standard modules only, and equal over full outputs in float64.

The first part has a test for each known defect of the published library (see `flow.simplify`).
"""

from __future__ import annotations

import copy

import networks
import pytest
import torch
from networks import Forward, difference, fill, kinds, lively
from simplified import COUPLED, GROUPED, IMAGE, PADDED, PINNED, small, widths
from torch import nn

from flow import network
from flow.errors import ConfigError, MismatchError
from flow.simplify import relative_difference, simplify
from flow.simplify import remove as remove_pass

# ---------------------------------------------------------------- defects of the published library


def test_a_balanced_row_survives():
    model = lively(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)))
    with torch.no_grad():
        model[0].weight[1] = torch.tensor([1.0, -1.0])
        model[0].bias[1] = 0
    assert widths(small(model, torch.zeros(2, 2))) == {"0": (2, 3), "2": (3, 2)}


def test_a_balanced_column_survives():
    model = lively(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)))
    with torch.no_grad():
        model[2].weight[:, 1] = torch.tensor([1.0, -1.0])
    assert widths(small(model, torch.zeros(2, 2))) == {"0": (2, 3), "2": (3, 2)}


def test_a_balanced_kernel_survives():
    model = lively(nn.Sequential(nn.Conv2d(2, 3, 2), nn.ReLU(), nn.Conv2d(3, 2, 2)))
    with torch.no_grad():
        model[0].weight[0] = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
        model[2].weight[:, 2] = torch.tensor([[1.0, -1.0], [1.0, -1.0]])
    assert widths(small(model)) == {"0": (2, 3), "2": (3, 2)}


def test_rows_whose_sum_of_squares_underflows_survive():
    model = lively(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)))
    fill(model[0], [1], 1e-200, 0)
    assert widths(small(model, torch.zeros(2, 2))) == {"0": (2, 3), "2": (3, 2)}


def test_one_dead_channel_stands_for_all_before_a_padded_conv():
    model = lively(nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1)))
    fill(model[0], [1, 3], 0, 0.7)
    fill(model[0], [0], 0, 0.2)
    result = small(model)
    assert widths(result) == {"0": (2, 2), "2": (2, 3)}
    assert result.kept == {"2": f"1 {PADDED}"}


@pytest.mark.parametrize("bias", [0.0, -0.7])
def test_a_dead_channel_that_is_zero_leaves_before_a_padded_conv(bias):
    model = lively(nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1)))
    fill(model[0], [1, 3], 0, bias)
    result = small(model)
    assert widths(result) == {"0": (2, 2), "2": (2, 3)}
    assert result.kept == {}


@pytest.mark.parametrize("padding_mode", ["reflect", "replicate", "circular"])
def test_padding_that_repeats_values_keeps_constants_constant(padding_mode):
    second = nn.Conv2d(4, 3, 3, padding=1, padding_mode=padding_mode)
    model = lively(nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), second))
    fill(model[0], [1, 3], 0, 0.7)
    assert widths(small(model)) == {"0": (2, 2), "2": (2, 3)}


def test_padding_by_name_counts_as_padding():
    model = lively(nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3, padding="same")))
    fill(model[0], [1], 0, 0.7)
    assert small(model).kept == {"2": f"1 {PADDED}"}


def test_coupled_channels_leave_together():
    model = networks.residual()
    fill(model.stem, [0, 2], 0, 0)
    fill(model.b, [0, 2], 0, 0)
    result = small(model, IMAGE, (2, 2, 9, 5))
    assert widths(result) == {"stem": (2, 2), "a": (2, 4), "b": (4, 2), "fc": (2, 3)}
    assert result.kept == {}


def test_coupled_channels_with_constants_leave_together_where_no_padding_reads_them():
    def forward(net, x):
        return net.out(torch.relu(net.left(x) + net.right(x)))

    model = lively(
        Forward(forward, left=nn.Conv2d(2, 4, 1), right=nn.Conv2d(2, 4, 1), out=nn.Conv2d(4, 2, 3))
    )
    fill(model.left, [1], 0, 2.0)
    fill(model.right, [1], 0, -0.5)
    assert widths(small(model)) == {"left": (2, 3), "right": (2, 3), "out": (3, 2)}


@pytest.mark.parametrize("layer", ["stem", "b"])
def test_a_residual_branch_that_is_dead_on_one_side_keeps_its_width(layer):
    model = networks.residual()
    fill(getattr(model, layer), [0, 2], 0, 0)
    result = small(model)
    assert widths(result)["b"] == (4, 4)
    assert result.kept == {layer: f"2 {COUPLED}"}
    assert kinds(result.model) == kinds(network.trace(model, IMAGE))


def test_a_depthwise_conv_shrinks():
    model = networks.mobile()
    fill(model.depth, [1, 2], 0, 0)
    result = small(model)
    assert widths(result) == {"up": (2, 2), "depth": (2, 2), "down": (2, 3)}
    assert result.model.get_submodule("depth").groups == 2


def test_a_depthwise_conv_shrinks_to_one_channel():
    model = networks.mobile()
    fill(model.up, [1, 2, 3], 0, 0)
    fill(model.depth, [1, 2, 3], 0, 0)
    result = small(model)
    assert widths(result) == {"up": (2, 1), "depth": (1, 1), "down": (1, 3)}


def test_a_depthwise_conv_that_reads_a_constant_over_its_border_stays():
    model = networks.mobile()
    fill(model.up, [1], 0, 0.7)
    result = small(model)
    assert widths(result)["depth"] == (4, 4)
    assert result.kept == {"depth": f"1 {PADDED}", "up": f"1 {COUPLED}"}


def test_a_depthwise_conv_passes_its_bias_on():
    model = networks.mobile()
    fill(model.up, [1], 0, -0.7)
    with torch.no_grad():
        model.depth.bias[1] = 1.5
    assert widths(small(model)) == {"up": (2, 3), "depth": (3, 3), "down": (3, 3)}


def grouped() -> nn.Module:
    conv = nn.Conv2d(4, 6, 3, groups=2)
    return lively(nn.Sequential(nn.Conv2d(2, 4, 1), nn.ReLU(), conv, nn.ReLU(), nn.Conv2d(6, 2, 1)))


def test_a_grouped_conv_keeps_groups_of_one_size():
    model = grouped()
    fill(model[0], [0], 0, 1.5)
    fill(model[2], [1, 4, 5], 0, 2.5)
    result = small(model)
    assert widths(result) == {"0": (2, 4), "2": (4, 4), "4": (4, 2)}
    assert result.kept == {"0": f"1 {GROUPED}", "2": f"1 {GROUPED}"}


def test_a_grouped_conv_loses_a_dead_group():
    model = grouped()
    fill(model[2], [0, 1, 2], 0, 2.5)
    result = small(model)
    assert widths(result) == {"0": (2, 2), "2": (2, 3), "4": (3, 2)}
    assert result.model.get_submodule("2").groups == 1


def test_an_output_that_is_dead_keeps_its_bias():
    model = lively(nn.Sequential(nn.Conv2d(2, 3, 3, padding=1)))
    fill(model[0], [1], 0, 2.5)
    result = small(model)
    assert result.kept == {"0": f"1 {PINNED}"}
    assert result.model(torch.ones(1, 2, 5, 5, dtype=torch.float64))[0, 1].unique().tolist() == [2.5]


def test_the_input_size_is_not_frozen():
    model = networks.residual()
    fill(model.a, [0, 3], 0, 0.5)
    fill(model.b, [1], 0, 0.5)
    fill(model.stem, [1], 0, 0.5)
    small(model, IMAGE, (2, 2, 11, 4), (2, 2, 3, 3))


def test_names_do_not_decide_what_is_coupled():
    def forward(net, x):
        return net.cat(net.relu_add(net.add(x)))

    model = lively(Forward(forward, add=nn.Conv2d(2, 4, 1), relu_add=nn.ReLU(), cat=nn.Conv2d(4, 2, 1)))
    fill(model.add, [0], 0, 3.0)
    assert widths(small(model)) == {"add": (2, 3), "cat": (3, 2)}


# ---------------------------------------------------------------- constants move into biases


AFTER = {
    "nothing": (),
    "relu": (nn.ReLU(),),
    "leaky relu": (nn.LeakyReLU(0.3),),
    "sigmoid": (nn.Sigmoid(),),
    "tanh": (nn.Tanh(),),
    "max pool": (nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True),),
    "average pool": (nn.AvgPool2d(2, ceil_mode=True),),
    "adaptive pool": (nn.AdaptiveAvgPool2d((3, 2)),),
    "norm after relu": (nn.ReLU(), nn.BatchNorm2d(4)),
    "norm after sigmoid and pool": (nn.Sigmoid(), nn.MaxPool2d(2), nn.BatchNorm2d(4, affine=False)),
    "dropout": (nn.Dropout(0.9), nn.Identity(), nn.ReLU()),
}


@pytest.mark.parametrize("bias", [1.3, -1.3])
@pytest.mark.parametrize("after", AFTER)
def test_an_unpadded_conv_absorbs_constants_through(after, bias):
    model = lively(nn.Sequential(nn.Conv2d(2, 4, 3), *AFTER[after], nn.Conv2d(4, 3, 2, bias=False)))
    fill(model[0], [0, 2], 0, bias)
    result = small(model)
    assert [(cost.inputs, cost.outputs) for cost in result.after] == [(2, 2), (2, 3)]


@pytest.mark.parametrize(
    "options", [{"padding": 1}, {"divisor_override": 3}, {"padding": 1, "divisor_override": 2}]
)
@pytest.mark.parametrize(("bias", "left"), [(1.3, 3), (0.0, 2)])
def test_an_average_pool_that_alters_constants_keeps_one(options, bias, left):
    pool = nn.AvgPool2d(3, stride=1, **options)
    model = lively(nn.Sequential(nn.Conv2d(2, 4, 3), pool, nn.Conv2d(4, 3, 2)))
    fill(model[0], [0, 2], 0, bias)
    assert widths(small(model)) == {"0": (2, left), "2": (left, 3)}


def test_an_average_pool_that_leaves_its_padding_out_stays_exact():
    pool = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
    model = lively(nn.Sequential(nn.Conv2d(2, 4, 3), pool, nn.Conv2d(4, 3, 2)))
    fill(model[0], [0, 2], 0, 1.3)
    small(model)


def test_constants_pass_a_flatten_into_a_dense_layer():
    model = lively(nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16, 3)))
    fill(model[0], [0, 2], 0, 1.3)
    assert widths(small(model)) == {"0": (2, 2), "3": (2 * 16, 3)}


def test_constants_pass_sums_and_concatenations():
    def forward(net, x):
        left, right = net.sigmoid(net.left(x)), net.right(x)
        return net.out(torch.cat([left, right, left + left], 1))

    layers = {"left": nn.Conv2d(2, 3, 1), "right": nn.Conv2d(2, 2, 1), "out": nn.Conv2d(8, 2, 3)}
    model = lively(Forward(forward, sigmoid=nn.Sigmoid(), **layers))
    fill(model.left, [1], 0, 0.4)
    fill(model.right, [0], 0, -0.4)
    assert widths(small(model)) == {"left": (2, 2), "right": (2, 1), "out": (5, 2)}


def test_constants_pass_several_layers():
    model = lively(nn.Sequential(nn.Linear(2, 4), nn.Sigmoid(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))
    fill(model[0], [0, 1, 3], 0, 0.3)
    with torch.no_grad():
        model[2].weight[1] = torch.tensor([1.0, 2.0, 0.0, 3.0])
        model[2].bias[1] = 1
    assert widths(small(model, torch.zeros(2, 2))) == {"0": (2, 1), "2": (1, 2), "4": (2, 2)}


def test_a_norm_whose_statistics_are_the_batchs_keeps_constants():
    norm = nn.BatchNorm2d(4, track_running_stats=False)
    model = lively(nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), norm, nn.Conv2d(4, 3, 2)))
    fill(model[0], [0, 2], 0, -1.3)
    assert kinds(small(model).model) == ["Conv2d", "ReLU", "BatchNorm2d", "Conv2d"]


def test_two_readers_of_one_constant_both_absorb_it():
    model = lively(
        Forward(
            lambda net, x: (lambda y: torch.cat([net.a(y), net.b(y)], 1))(net.relu(net.stem(x))),
            stem=nn.Conv2d(2, 4, 3),
            relu=nn.ReLU(),
            a=nn.Conv2d(4, 2, 2, bias=False),
            b=nn.Conv2d(4, 3, 2),
        )
    )
    fill(model.stem, [1, 2], 0, 0.9)
    assert widths(small(model)) == {"stem": (2, 2), "a": (2, 2), "b": (2, 3)}


def test_a_constant_stays_for_both_readers_when_one_pads():
    model = lively(
        Forward(
            lambda net, x: (lambda y: net.a(y) + net.b(y))(net.stem(x)),
            stem=nn.Conv2d(2, 4, 3),
            a=nn.Conv2d(4, 2, 3, padding=1),
            b=nn.Conv2d(4, 2, 1),
        )
    )
    fill(model.stem, [1, 2], 0, 0.9)
    assert widths(small(model)) == {"stem": (2, 3), "a": (3, 2), "b": (3, 2)}


# ---------------------------------------------------------------- dead channels leave


def test_a_channel_that_no_one_reads_leaves():
    model = lively(nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)))
    with torch.no_grad():
        model[2].weight[:, [0, 4]] = 0
    assert widths(small(model, torch.zeros(2, 3))) == {"0": (3, 3), "2": (3, 2)}


def test_a_removal_at_the_end_reaches_the_start():
    layers = [
        nn.Linear(3, 4),
        nn.ReLU(),
        nn.Linear(4, 4),
        nn.ReLU(),
        nn.Linear(4, 4),
        nn.ReLU(),
        nn.Linear(4, 2),
    ]
    model = lively(nn.Sequential(*layers))
    with torch.no_grad():
        for index in (2, 4):
            model[index].weight[:] = torch.diag(torch.arange(1.0, 5.0))
        model[6].weight[:, 3] = 0
    assert widths(small(model, torch.zeros(2, 3))) == {"0": (3, 3), "2": (3, 3), "4": (3, 3), "6": (3, 2)}


def test_an_input_that_no_one_reads_stays():
    model = lively(nn.Sequential(nn.Linear(3, 2)))
    with torch.no_grad():
        model[0].weight[:, 1] = 0
    assert widths(small(model, torch.zeros(2, 3))) == {"0": (3, 2)}


def test_an_unpruned_network_only_loses_its_norms():
    model = lively(networks.cnn())
    result = small(model, torch.zeros(2, 1, 6, 6, dtype=torch.float64))
    assert kinds(result.model) == [
        "Conv2d", "ReLU", "MaxPool2d", "Conv2d", "ReLU", "Flatten", "Linear", "ReLU", "Linear",
    ]  # fmt: skip
    assert [(c.name, c.outputs) for c in result.after] == [(c.name, c.outputs) for c in result.before]


def test_dropout_between_a_layer_and_its_norm_does_not_hinder():
    model = lively(nn.Sequential(nn.Conv2d(2, 3, 1), nn.Dropout(), nn.Identity(), nn.BatchNorm2d(3)))
    assert kinds(small(model).model) == ["Conv2d"]


@pytest.mark.parametrize("bias", [0.0, 0.8, -0.8])
@pytest.mark.parametrize("padding", [0, 1])
def test_a_layer_without_survivors_stays_exact(padding, bias):
    model = lively(nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=padding)))
    fill(model[0], [0, 1, 2, 3], 0, bias)
    result = small(model)
    assert widths(result) == {"0": (2, 1), "2": (1, 3)}


def test_a_network_of_zeros_stays_exact():
    model = networks.residual()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    result = small(model)
    assert widths(result) == {"stem": (2, 1), "a": (1, 1), "b": (1, 1), "fc": (1, 3)}
    assert result.kept["output"] == "it is constant: it no longer depends on the input"


def test_single_channels_stay():
    model = lively(
        nn.Sequential(nn.Conv2d(2, 1, 1), nn.BatchNorm2d(1), nn.ReLU(), nn.Conv2d(1, 1, 3, padding=1))
    )
    assert widths(small(model)) == {"0": (2, 1), "3": (1, 1)}


@pytest.mark.parametrize("scale", [1e-30, 1e30, 1e60])
def test_huge_and_tiny_weights_stay_exact(scale):
    model = networks.residual()
    with torch.no_grad():
        for layer in (model.stem, model.b):
            layer.weight.mul_(scale)
            layer.bias.mul_(scale)
    fill(model.stem, [0], 0, scale)
    fill(model.a, [1], 0, -scale)
    small(model)


def test_saturated_sigmoids_stay_exact():
    model = lively(nn.Sequential(nn.Linear(2, 4), nn.Sigmoid(), nn.Linear(4, 3)))
    fill(model[0], [0], 0, 1e9)
    fill(model[0], [1], 0, -1e9)
    fill(model[0], [2], 1e9, 0)
    assert widths(small(model, torch.zeros(2, 2))) == {"0": (2, 2), "2": (2, 3)}


def test_one_dimensional_convs_shrink():
    model = lively(
        nn.Sequential(nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(4, 2, 2))
    )
    with torch.no_grad():
        model[1].weight[[0, 3]] = 0
    assert widths(small(model, torch.zeros(2, 2, 10))) == {"0": (2, 2), "4": (2, 2)}


# ---------------------------------------------------------------- the result, its type and its proof


def test_the_result_has_the_type_of_the_parameters_and_evaluates():
    model = networks.cnn()
    fill(model.conv1, [0], 0)
    result = simplify(model, torch.zeros(2, 1, 6, 6), samples=4)
    assert {parameter.dtype for parameter in result.model.parameters()} == {torch.float32}
    assert not any(module.training for module in result.model.modules())
    x = torch.randn(50, 1, 6, 6)
    assert torch.allclose(model.eval()(x), result.model(x), rtol=0, atol=1e-6)


def test_a_result_survives_saving(tmp_path):
    model = networks.mobile()
    fill(model.depth, [1, 2], 0, 0)
    result = simplify(model, IMAGE, samples=4)
    network.save(result.model, tmp_path)
    assert difference(result.model, network.load(tmp_path), 3, 2, 5, 5) < 1e-15


def test_the_same_seed_gives_the_same_proof():
    model = networks.residual()
    fill(model.a, [1], 0, 0.5)
    runs = [simplify(model, IMAGE, samples=40, seed=3) for _ in range(2)]
    assert runs[0].max_error == runs[1].max_error
    assert runs[0].samples == 40


@pytest.mark.parametrize("samples", [0, -1])
def test_a_proof_without_samples_is_refused(samples):
    with pytest.raises(ConfigError) as caught:
        simplify(networks.mlp(), torch.zeros(2, 6), samples=samples)
    assert str(caught.value) == f"simplify: samples must be at least 1, not {samples}; 256 is usual"


def test_a_defect_of_a_pass_is_caught_by_the_proof(monkeypatch):
    def broken(graph, channels, states):
        graph = copy.deepcopy(graph)
        fill(graph.get_submodule("fc3"), [0], 0, 5)
        return graph, False

    monkeypatch.setattr(remove_pass, "remove_dead", broken)
    with pytest.raises(MismatchError) as caught:
        simplify(networks.mlp(), torch.zeros(2, 6), samples=4)
    assert str(caught.value).startswith("simplify: outputs must be equal to 1e-09, not differ by ")
    assert str(caught.value).endswith(" (relative, float64); keep the network and report it")


def test_outputs_that_are_not_numbers_prove_nothing():
    model = lively(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1e200)
    with pytest.raises(MismatchError) as caught:
        simplify(model, torch.zeros(2, 2), samples=4)
    assert str(caught.value) == (
        "simplify: outputs must be equal to 1e-09, not differ by nan (relative, float64); "
        "keep the network and report it"
    )


def test_a_changed_output_shape_is_caught():
    left, right = nn.Linear(2, 3).double(), nn.Linear(2, 4).double()
    with pytest.raises(MismatchError) as caught:
        relative_difference(left, right, torch.zeros(2, 2), samples=40, seed=0)
    assert str(caught.value) == (
        "simplify: output must keep its shape (16, 3), not become (16, 4); report the network"
    )


def test_the_difference_is_relative_to_the_largest_output():
    left, right = nn.Linear(1, 1).double(), nn.Linear(1, 1).double()
    fill(left, [0], 0, 4)
    fill(right, [0], 0, 5)
    example = torch.zeros(2, 1)
    assert relative_difference(left, right, example, samples=33, seed=0) == 0.25
    assert relative_difference(left, left, example, samples=33, seed=0) == 0


def test_a_dense_layer_on_three_dimensions_is_refused_before_anything_is_fused():
    from flow.errors import UnsupportedError

    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(3))
    with pytest.raises(UnsupportedError) as caught:
        simplify(model, torch.zeros(2, 3, 4))
    assert str(caught.value) == (
        "channels: layer '0' (Linear) must read (batch, features), not 3 dimensions; put a Flatten in front of it"
    )
