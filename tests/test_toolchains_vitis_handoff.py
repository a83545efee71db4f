"""Hand-offs of Vivado: real ones to exact figures, the DMA that a network needs, and files that are none."""

import re
import zipfile
from pathlib import Path

import pytest

from flow.errors import ConfigError, ToolError
from flow.toolchains.vitis import handoff
from flow.toolchains.vitis.handoff import Cell, Dma, Handoff, Processor

ROOT = Path(__file__).resolve().parents[1]
MLP = "pynq_z2_mlp_2019.2/dma_test_pynq_{}/dma_test_pynq_v2/dma_test_pynq.srcs/sources_1/bd/design_1/"
MLP += "hw_handoff/design_1.hwh"
STREAM = MLP.format("stream")
IRIS = "pynq_z2_iris_2025.1/vivado_project/iris_hardware/iris_hardware.gen/sources_1/bd/design_1/"
IRIS_SMC = IRIS + "ip/design_1_axi_smc_2/bd_0/hw_handoff/design_1_axi_smc_2.hwh"
IRIS += "hw_handoff/design_1.hwh"
HDF = "mlperf_tiny_hdf/open/hls4ml-finn/code/{}/inference/pynq-z2/vivado_project/hdf/design_1_wrapper.hdf"
PS7 = Processor(100.0)
NETWORK = "hier_0_myproject_axi_0"
DMA = Dma(
    "hier_0_axi_dma_0",
    "axi_dma",
    0x4040_0000,
    0x1_0000,
    length_bits=26,
    address_bits=32,
    scatter_gather=False,
    mm2s_stream_bits=32,
    s2mm_stream_bits=32,
    feeds=(NETWORK,),
    fed_by=(NETWORK,),
)


def ip(instance, kind, base=None):
    return Cell(instance, kind, base, None if base is None else 0x1_0000)


# ---------------------------------------------------------------- real hand-offs


@pytest.mark.parametrize(("name", "bits"), [("stream", 32), ("ap_fixed", 16), ("float", 32)])
def test_the_hand_offs_with_a_dma_read_to_exact_figures(vendor, name, bits):
    path = vendor / MLP.format(name)
    dma = Dma(**{**vars(DMA), "mm2s_stream_bits": bits, "s2mm_stream_bits": bits})
    assert handoff.read(path) == Handoff(
        path=path,
        processor=PS7,
        dmas=(dma,),
        cells=(
            ip("axi_mem_intercon", "axi_interconnect"),
            ip(NETWORK, "myproject_axi", 0x43C0_0000),
            ip("ps7_0_axi_periph", "axi_interconnect"),
            ip("rst_ps7_0_100M", "proc_sys_reset"),
        ),
    )


def test_the_hand_off_of_2025_reads_to_exact_figures(vendor):
    assert handoff.read(vendor / IRIS) == Handoff(
        path=vendor / IRIS,
        processor=PS7,
        cells=(
            ip("axi_gpio_0", "axi_gpio", 0x4000_0000),
            ip("axi_gpio_1", "axi_gpio", 0x4001_0000),
            ip("axi_gpio_2", "axi_gpio", 0x4002_0000),
            ip("axi_gpio_3", "axi_gpio", 0x4003_0000),
            ip("axi_smc", "smartconnect"),
            ip("myproject_0", "myproject"),
            ip("rst_ps7_0_100M", "proc_sys_reset"),
            ip("xlconcat_0", "xlconcat"),
        ),
    )


def test_the_hand_off_of_a_smartconnect_has_no_processor(vendor):
    found = handoff.read(vendor / IRIS_SMC)
    assert (found.processor, found.dmas, len(found.cells)) == (None, (), 54)


@pytest.mark.parametrize("name", ["ad/AD08", "ic/RN07"])
def test_the_hand_off_in_an_archive_is_the_one_with_the_processor(vendor, name):
    path = vendor / HDF.format(name)
    assert handoff.read(path) == Handoff(
        path=path,
        processor=PS7,
        cells=(
            ip("axi_smc", "smartconnect"),
            ip("myproject_axi_0", "myproject_axi", 0x43C0_0000),
            ip("ps7_0_axi_periph", "axi_interconnect"),
            ip("rst_ps7_0_100M", "proc_sys_reset"),
        ),
    )


def test_every_real_hand_off_is_read(vendor):
    known = [STREAM, MLP.format("ap_fixed"), MLP.format("float"), IRIS, IRIS_SMC]
    assert sorted(vendor.rglob("*.hwh")) == sorted(vendor / name for name in known)
    assert sorted(vendor.rglob("*.hdf")) == sorted(
        vendor / HDF.format(name) for name in ("ad/AD08", "ic/RN07")
    )


# ---------------------------------------------------------------- UltraScale+ and the monitor

SYSTEM = """\
<EDKSYSTEM VIVADOVERSION="2023.2"><SYSTEMINFO DEVICE="xck26" PACKAGE="sfvc784" SPEEDGRADE="-2LV" NAME="system"/>
<MODULES>
<MODULE INSTANCE="axi_dma_0" MODTYPE="axi_dma" VLNV="xilinx.com:ip:axi_dma:7.1">
<PARAMETERS><PARAMETER NAME="c_sg_length_width" VALUE="26"/><PARAMETER NAME="c_addr_width" VALUE="40"/>
<PARAMETER NAME="c_include_sg" VALUE="0"/><PARAMETER NAME="c_include_mm2s" VALUE="1"/>
<PARAMETER NAME="c_include_s2mm" VALUE="1"/><PARAMETER NAME="c_m_axis_mm2s_tdata_width" VALUE="32"/>
<PARAMETER NAME="c_s_axis_s2mm_tdata_width" VALUE="32"/></PARAMETERS>
<BUSINTERFACES>{axi_dma_0}</BUSINTERFACES></MODULE>
<MODULE INSTANCE="monitor_0" MODTYPE="flow_monitor" VLNV="xilinx.com:module_ref:flow_monitor:1.0">
<BUSINTERFACES>{monitor_0}</BUSINTERFACES></MODULE>
<MODULE INSTANCE="net_axis_0" MODTYPE="net_axis" VLNV="xilinx.com:hls:net_axis:1.0">
<BUSINTERFACES>{net_axis_0}</BUSINTERFACES></MODULE>
<MODULE INSTANCE="zynq_ultra_ps_e_0" MODTYPE="zynq_ultra_ps_e" VLNV="xilinx.com:ip:zynq_ultra_ps_e:3.5">
<PARAMETERS><PARAMETER NAME="PSU__PSS_REF_CLK__FREQMHZ" VALUE="33.333333"/>
<PARAMETER NAME="PSU__CRL_APB__PL0_REF_CTRL__FREQMHZ" VALUE="200"/>
<PARAMETER NAME="PSU__CRL_APB__PL0_REF_CTRL__ACT_FREQMHZ" VALUE="199.998001"/>
<PARAMETER NAME="PSU__USE__M_AXI_GP0" VALUE="1"/><PARAMETER NAME="PSU__USE__S_AXI_GP2" VALUE="1"/></PARAMETERS>
<MEMORYMAP><MEMRANGE BASEVALUE="0xA0000000" HIGHVALUE="0xA000FFFF" INSTANCE="axi_dma_0"/>
<MEMRANGE BASEVALUE="0xA0010000" HIGHVALUE="0xA001FFFF" INSTANCE="monitor_0"/></MEMORYMAP></MODULE>
</MODULES></EDKSYSTEM>
"""
WIRES = (
    ("axi_dma_0/M_AXIS_MM2S", "monitor_0/s_in"),
    ("monitor_0/m_in", "net_axis_0/s_axis"),
    ("net_axis_0/m_axis", "monitor_0/s_out"),
    ("monitor_0/m_out", "axi_dma_0/S_AXIS_S2MM"),
)


def system(wires=WIRES):
    """Return a hand-off with streams from output to input."""
    interfaces = {"axi_dma_0": "", "monitor_0": "", "net_axis_0": ""}
    for number, pair in enumerate(wires):
        for end, side in zip(pair, ("INITIATOR", "TARGET"), strict=True):
            cell, name = end.split("/")
            interfaces[cell] += (
                f'<BUSINTERFACE BUSNAME="w{number}" NAME="{name}" TYPE="{side}" VLNV="xilinx.com:interface:axis:1.0"/>'
            )
    return SYSTEM.format(**interfaces)


def read(folder, text):
    (folder / "system.hwh").write_text(text)
    return handoff.read(folder / "system.hwh")


def test_the_processor_of_an_ultrascale_is_read(tmp_path):
    found = read(tmp_path, system())
    assert found.processor == Processor(199.998001)
    assert found.cells == (
        ip("monitor_0", "flow_monitor", 0xA001_0000),
        ip("net_axis_0", "net_axis"),
    )


def test_a_stream_is_followed_through_the_monitor_and_the_network(tmp_path):
    found = read(tmp_path, system())
    [dma] = found.dmas
    assert dma.feeds == dma.fed_by == ("monitor_0", "net_axis_0", "monitor_0")
    assert handoff.require_dma(found, "net_axis") is dma


def test_a_stream_that_goes_round_without_the_dma_ends(tmp_path):
    ring = (("monitor_0/m_in", "net_axis_0/s_axis"), ("net_axis_0/m_axis", "monitor_0/s_in"))
    assert read(tmp_path, system((WIRES[0], *ring))).dmas[0].feeds[:2] == ("monitor_0", "net_axis_0")


# ---------------------------------------------------------------- the DMA of a network


def refused(found, network="net_axis"):
    """Return why there is no DMA for the network, without what all messages share."""
    with pytest.raises(ConfigError) as caught:
        handoff.require_dma(found, network)
    head, tail = f"deploy: hand-off {found.path} must ", "; take the block design of hls_templates/tcl"
    assert str(caught.value).startswith(head) and str(caught.value).endswith(tail)
    return str(caught.value)[len(head) : -len(tail)]


def test_the_real_dma_is_taken(vendor):
    assert handoff.require_dma(handoff.read(vendor / STREAM), "myproject_axi") == DMA


def test_a_real_dma_of_another_width_is_refused(vendor):
    found = handoff.read(vendor / MLP.format("ap_fixed"))
    assert refused(found, "myproject_axi") == (
        "have streams of 32 bits to and from the network, not 16 and 16 at hier_0_axi_dma_0"
    )
    assert handoff.require_dma(found, "myproject_axi", stream_bits=16).mm2s_stream_bits == 16


def test_a_real_design_without_a_dma_is_refused(vendor):
    assert refused(handoff.read(vendor / IRIS), "myproject") == "hold an AXI DMA, not none"
    assert (
        refused(handoff.read(vendor / HDF.format("ad/AD08")), "myproject_axi") == "hold an AXI DMA, not none"
    )


def test_a_design_without_the_network_is_refused(vendor):
    assert refused(handoff.read(vendor / STREAM)) == (
        "hold the network's cell of type 'net_axis', not only axi_interconnect, myproject_axi, proc_sys_reset"
    )


@pytest.mark.parametrize(
    ("wires", "found"),
    [
        ((), "axi_dma_0 sends to nothing and receives from nothing"),
        (WIRES[:3], "axi_dma_0 sends to monitor_0 and receives from nothing"),
        (WIRES[1:], "axi_dma_0 sends to nothing and receives from monitor_0"),
        ((("axi_dma_0/M_AXIS_MM2S", "monitor_0/s_in"), ("monitor_0/m_in", "axi_dma_0/S_AXIS_S2MM")),
         "axi_dma_0 sends to monitor_0 and receives from monitor_0"),
    ],
)  # fmt: skip
def test_a_dma_that_the_network_is_not_connected_to_is_refused(tmp_path, wires, found):
    assert (
        refused(read(tmp_path, system(wires))) == f"connect one AXI DMA to net_axis_0 and back, not {found}"
    )


def test_a_cell_that_may_change_the_words_is_not_passed(tmp_path):
    text = system().replace('"flow_monitor"', '"axis_dwidth_converter"')
    assert refused(read(tmp_path, text)) == (
        "connect one AXI DMA to net_axis_0 and back, not axi_dma_0 sends to monitor_0 and receives from monitor_0"
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('c_include_sg" VALUE="0"', 'c_include_sg" VALUE="1"',
         "have its AXI DMA in simple mode, not axi_dma_0 with scatter-gather"),
        ('c_include_s2mm" VALUE="1"', 'c_include_s2mm" VALUE="0"',
         "have streams of 32 bits to and from the network, not 32 and None at axi_dma_0"),
        ('INSTANCE="axi_dma_0"/>', 'INSTANCE="another"/>',
         "map its AXI DMA for the processor, not axi_dma_0 without address"),
    ],
)  # fmt: skip
def test_a_dma_that_the_driver_cannot_use_is_refused(tmp_path, old, new, message):
    assert system().count(old) == 1
    assert refused(read(tmp_path, system().replace(old, new))) == message


# ---------------------------------------------------------------- damage


def damaged(path, content):
    """Write a file and return why it is no hand-off, without what all messages share."""
    path.write_bytes(content)
    with pytest.raises(ToolError) as caught:
        handoff.read(path)
    head, tail = f"deploy: hand-off {path} must ", "; copy it again, or build it again"
    assert str(caught.value).startswith(head) and str(caught.value).endswith(tail)
    return str(caught.value)[len(head) : -len(tail)]


@pytest.mark.parametrize("place", [0, 3, 200, 5_000, 100_000, 318_000])
def test_a_cut_hand_off_is_an_error(vendor, tmp_path, place):
    message = damaged(tmp_path / "a.hwh", (vendor / STREAM).read_bytes()[:place])
    assert message.startswith("be whole XML without a document type, not text that fails with")


ENTITIES = """\
<!DOCTYPE bomb [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>
<EDKSYSTEM><SYSTEMINFO NAME="&b;"/></EDKSYSTEM>
"""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("hello", "be whole XML without a document type, not text that fails with "
         "'syntax error: line 1, column 0'"),
        (ENTITIES, "be whole XML without a document type, not text that fails with 'a document type'"),
        ('<?xml version="1.0" encoding="cp99999"?><a/>', "be whole XML without a document type, not text that "
         "fails with 'unknown encoding: cp99999'"),
        ("<html/>", "be a hand-off of Vivado, not XML of <html>"),
        ("<EDKSYSTEM/>", "be a hand-off of Vivado, not XML of <EDKSYSTEM>"),
        (system().replace('c_sg_length_width" VALUE="26"', 'c_sg_length_width" VALUE="many"'),
         "hold sound numbers, not \"invalid literal for int() with base 10: 'many'\""),
        (system().replace('BASEVALUE="0xA0000000"', ""),
         "hold sound numbers, not \"invalid literal for int() with base 0: ''\""),
        (system().replace('VALUE="199.998001"', 'VALUE=""'),
         "hold sound numbers, not \"could not convert string to float: ''\""),
    ],
)  # fmt: skip
def test_what_is_no_hand_off_is_an_error(tmp_path, content, message):
    assert damaged(tmp_path / "a.hwh", content.encode()) == message


def archive(path, **texts):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, text in texts.items():
            made.writestr(f"{name}.hwh" if name != "readme" else name, text)
    return path.read_bytes()


def test_an_archive_needs_one_hand_off_with_a_processor(tmp_path):
    path = tmp_path / "a.xsa"
    rule = "hold one .hwh file with a processor, not "
    assert damaged(path, archive(path, readme="none")) == rule + "0 of 0 .hwh files"
    other = system().replace("zynq_ultra_ps_e", "microblaze")
    assert damaged(path, archive(path, a=other)) == rule + "0 of 1 .hwh files"
    assert damaged(path, archive(path, a=system(), b=system(), c=other)) == rule + "2 of 3 .hwh files"
    path.write_bytes(archive(path, a=system(), b=other))
    assert handoff.read(path).processor == Processor(199.998001)


@pytest.mark.parametrize("place", [4, 1_000, 1_000_000, 1_825_000])
def test_a_cut_archive_is_an_error(vendor, tmp_path, place):
    content = (vendor / HDF.format("ad/AD08")).read_bytes()[:place]
    assert damaged(tmp_path / "a.hdf", content) == (
        "be a whole archive, not one that fails with 'File is not a zip file'"
    )


def test_an_archive_with_a_damaged_hand_off_is_an_error(vendor, tmp_path):
    with zipfile.ZipFile(vendor / HDF.format("ad/AD08")) as whole:
        begin = whole.getinfo("design_1.hwh").header_offset
    content = bytearray((vendor / HDF.format("ad/AD08")).read_bytes())
    content[begin + 2_000] ^= 255
    message = damaged(tmp_path / "a.hdf", bytes(content))
    assert re.match("be a whole archive, not one that fails with", message)


def test_a_hand_off_that_unpacks_to_too_much_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(handoff, "_LIMIT_BYTES", 100_000)
    path = tmp_path / "a.xsa"
    rule = "hold at most 100,000 bytes of .hwh files, not more with "
    bomb = " " * 100_001
    assert damaged(path, archive(path, a=bomb)) == rule + "'a.hwh'"
    half = system() + " " * 50_000
    assert damaged(path, archive(path, a=half, b=half)) == rule + "'b.hwh'"
    assert damaged(tmp_path / "a.hwh", bomb.encode()) == "have at most 100,000 bytes, not 100,001"


def test_a_size_that_an_archive_lies_about_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(handoff, "_LIMIT_BYTES", 100_000)
    path = tmp_path / "a.xsa"
    content = archive(path, a=" " * 1_000_000)
    small, large = (1_000).to_bytes(4, "little"), (1_000_000).to_bytes(4, "little")
    assert damaged(path, content.replace(large, small)) == (
        "be a whole archive, not one that fails with \"Bad CRC-32 for file 'a.hwh'\""
    )


def test_a_missing_hand_off_is_an_error(tmp_path):
    path = tmp_path / "none.hwh"
    with pytest.raises(ConfigError) as caught:
        handoff.read(path, subject="synthesize")
    assert str(caught.value) == (
        f"synthesize: hand-off {path} must be a readable file, not fail with 'No such file or directory'; "
        "build it first"
    )
