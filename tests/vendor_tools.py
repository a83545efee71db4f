"""Small scripts in place of the vendor's programs, and the reports that they leave."""

from pathlib import Path

from bit_files import bit_file
from handoff_files import hand_off

from flow.types import Board, FixedPoint, HlsProject, Port, Report, Resources

BOARD = Board(
    name="pynq-z2",
    title="TUL PYNQ-Z2",
    part="xc7z020clg400-1",
    toolchains=("vitis",),
    clock_period_ns=10.0,
    resources=Resources(),
    ps={
        "type": "zynq7000",
        "crystal_mhz": 50.0,
        "cpu_mhz": 650.0,
        "ddr_type": "DDR3",
        "ddr_part": "MT41J256M16 RE-125",
        "ddr_width_bits": 16,
        "ddr_mhz": 525.0,
        "ddr_mib": 512,
    },
    pins={},
    source={},
)
PROJECT = HlsProject(
    path=Path("project"),
    top="net",
    io_type="io_stream",
    inputs=(Port("image", (8, 8, 1), FixedPoint(True, 1, 7)),),
    outputs=(Port("scores", (10,), FixedPoint(True, 6, 17)),),
    layers=(),
    onnx_path=Path("net.onnx"),
    golden_path=Path("golden.npz"),
    clock_period_ns=10.0,
    part="xc7z020clg400-1",
)

CSYNTH = """\
<profile>
<PerformanceEstimates>
<SummaryOfTimingAnalysis><EstimatedClockPeriod>7.300</EstimatedClockPeriod></SummaryOfTimingAnalysis>
<SummaryOfOverallLatency>
<Worst-caseLatency>120</Worst-caseLatency><Interval-max>64</Interval-max>
</SummaryOfOverallLatency>
</PerformanceEstimates>
<AreaEstimates><Resources>
<BRAM_18K>2</BRAM_18K><DSP>3</DSP><FF>500</FF><LUT>900</LUT>
</Resources></AreaEstimates>
<ModuleInformation><Module><Name>dense</Name><AreaEstimates><Resources>
<BRAM_18K>1</BRAM_18K><DSP>3</DSP><FF>300</FF><LUT>500</LUT>
</Resources></AreaEstimates></Module></ModuleInformation>
</profile>
"""
UTILIZATION = """\
| Site Type      | Used | Available |
| Slice LUTs     | 4000 |     53200 |
| Slice Registers | 5000 |   106400 |
| Site Type      | Used | Available |
| Block RAM Tile |  2.5 |       140 |
| Site Type      | Used | Available |
| DSPs           |    3 |       220 |
"""
TIMING = """\
| Design Timing Summary
| ---------------------
-----------------------

    WNS(ns)      TNS(ns)  TNS Failing Endpoints  and so on
    -------      -------  ---------------------  ---------
      {slack}        0.000  0  10  0.020  0.000  0  10  4.020  0.000  0  5

| Clock Summary
| -------------
---------------

Clock       Waveform(ns)       Period(ns)      Frequency(MHz)
-----       ------------       ----------      --------------
clk_fpga_0  {{0.000 5.000}}      10.000          100.000

"""
POWER = "| Total On-Chip Power (W)  | 1.500 |\n"
VERSION = """\
case "$*" in *-version*) echo "$(basename "$0") v2023.2 (64-bit)"; exit 0;; esac
"""
HLS = (
    VERSION
    + """\
echo "vitis_hls $*" >> argv.txt
echo "flow: step C simulation"
echo "INFO: [HLS 200-10] -- Implementing module 'dense' "
mkdir -p reports
cp "$FAKE/reports/csynth.xml" reports/
"""
)
VIVADO = (
    VERSION
    + """\
echo "vivado $*" >> argv.txt
echo "flow: step implementation"
mkdir -p reports
cp "$FAKE"/reports/*.rpt reports/
case "$*" in
*ooc*) echo routed > net_ooc.dcp ;;
*) cp "$FAKE/net.bit" "$FAKE/net.hwh" . ;;
esac
"""
)
REPORTED = Report(
    resources=Resources(luts=4000, flip_flops=5000, dsps=3, bram_bits=92160),
    fmax_mhz=1000 / 9.75,
    slack_ns=0.25,
    latency_cycles=120,
    interval_cycles=64,
)


def same(report):
    """Tell whether a report has the figures of the fake tools, whatever else it has."""
    return {key: value for key, value in vars(report).items() if key in KEYS} == KEYS


KEYS = {key: value for key, value in vars(REPORTED).items() if value is not None}


def put(folder, name, script):
    """Put a program into a folder."""
    path = folder / name.replace("vitis_run", "vitis-run")
    path.write_text(f"#!/bin/sh\nset -eu\n{script}")
    path.chmod(0o755)


def leave(folder, top="net", **hardware):
    """Write what a whole build leaves into a folder: reports, hand-off and, last, the bitstream."""
    (folder / "reports").mkdir(exist_ok=True)
    for name, text in (
        ("csynth.xml", CSYNTH),
        ("utilization.rpt", UTILIZATION),
        ("timing.rpt", TIMING.format(slack="0.250")),
        ("power.rpt", POWER),
    ):
        (folder / "reports" / name).write_text(text)
    (folder / f"{top}.hwh").write_text(hand_off(f"{top}_axis", **hardware))
    (folder / f"{top}.bit").write_bytes(bit_file())
