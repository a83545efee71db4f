"""What C synthesis said layer by layer, against real reports of 2019.2, 2020.1 and 2025.1."""

import os
from pathlib import Path

import pytest

from flow.errors import ToolError
from flow.toolchains.vitis.modules import parse_modules
from flow.types import Report, Resources

ROOT = Path(__file__).resolve().parents[1]
SYN = "myproject_prj/solution1/syn/report/"
SVHN = "svhn_cnn_xcu250_2020.1/{}_cnn/" + SYN + "myproject_csynth.rpt"
IRIS = "pynq_z2_iris_2025.1/projeto_iris_hls_ip_axi/" + SYN
MLP = "pynq_z2_mlp_2019.2/dma_test_pynq_{}/cpp_nn_{}/" + SYN
IRIS_DENSE = "dense_latency_ap_fixed_16_6_5_3_0_ap_fixed_16_6_5_3_0_config4_s"
BLOCK = 18 * 1024


@pytest.fixture(scope="module")
def vendor() -> Path:
    folder = Path(os.environ.get("FLOW_SHARED", ROOT.parent / "shared")) / "vendor"
    if not folder.is_dir():
        reason = f"the vendor reports are not in {folder} (FLOW_SHARED)"
        (pytest.fail if os.environ.get("FLOW_REQUIRE_TOOLS") == "1" else pytest.skip)(reason)
    return folder


@pytest.mark.parametrize(
    ("path", "module", "luts", "flip_flops", "dsps", "blocks", "latency", "interval", "modules"),
    [
        (SVHN.format("pruned"), "conv_2d_cl_array_array_ap_fixed_16u_config7_s", 38710, 10465, 786, 0, 229, 229, 16),
        (SVHN.format("quantized_pruned"), "conv_2d_cl_array_array_ap_fixed_16u_config6_s",
         42854, 9439, 105, 0, 229, 229, 18),
        (SVHN.format("quantized_pruned"), "softmax_array_array_ap_fixed_10u_softmax_config24_s",
         3096, 788, 10, 4, 7, 7, 18),
        (MLP.format("stream", "v3") + "myproject_csynth.rpt", "dense_array_array_ap_fixed_16_6_5_3_0_64u_config2_s",
         4533, 4639, 16, 4, 69, 69, 8),
        (MLP.format("ap_fixed", "v2") + "myproject_csynth.rpt", "dense_resource_3", 5827, 5315, 16, 4, 77, 64, 9),
        (IRIS + "csynth.xml", IRIS_DENSE, 1957, 6149, 56, 0, 5, 1, 7),
        (IRIS + "myproject_csynth.rpt", IRIS_DENSE, 1957, 6149, 56, 0, 5, 1, 6),
        ("hls4ml_2020.1/test/pytest/test_report/Vivado/myproject_csynth.rpt",
         "relu_array_array_ap_fixed_5u_relu_config3_s", 256, 84, 0, 0, 2, 1, 2),
    ],
)  # fmt: skip
def test_real_reports_give_exact_figures(
    vendor: Path, path: str, module: str, luts: int, flip_flops: int, dsps: int, blocks: int, latency: int,
    interval: int, modules: int,
) -> None:  # fmt: skip
    found = parse_modules(vendor / path)
    assert len(found) == modules
    assert found[module] == Report(
        Resources(luts, flip_flops, dsps, blocks * BLOCK), latency_cycles=latency, interval_cycles=interval
    )


def test_the_layers_of_a_report_add_up_to_its_total(vendor: Path) -> None:
    found = parse_modules(vendor / SVHN.format("pruned"))
    assert sum(report.resources.luts or 0 for report in found.values()) == 231_790
    assert sum(report.resources.flip_flops or 0 for report in found.values()) == 47_025
    assert sum(report.resources.dsps or 0 for report in found.values()) == 5_414


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("csynth.xml", "<profile><Module>", "must be a C synthesis report, not fail with"),
        ("csynth.xml", "<profile></profile>", "must name functions, not none; take csynth.xml of Vitis HLS"),
        ("net_csynth.rpt", "nothing", "must name functions, not none; take csynth.xml of Vitis HLS"),
        ("missing.rpt", None, "must be a C synthesis report, not fail with"),
    ],
)
def test_a_broken_report_is_refused(tmp_path: Path, name: str, text: str | None, message: str) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(ToolError) as refused:
        parse_modules(path)
    assert str(refused.value).startswith(f"synthesize: report {path} {message}")
