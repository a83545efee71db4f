"""Hardware hand-offs of the block design that hls_templates/tcl makes, in the form of Vivado's .hwh files."""

from collections.abc import Mapping

HEAD = """\
<?xml version="1.0" encoding="UTF-8" standalone="no" ?>
<EDKSYSTEM EDWVERSION="1.2" TIMESTAMP="Sun Nov 29 12:34:56 2026" VIVADOVERSION="2023.2">
  <SYSTEMINFO ARCH="{arch}" DEVICE="{device}" NAME="system" PACKAGE="{package}" SPEEDGRADE="-1"/>
  <MODULES>
"""
TAIL = "  </MODULES>\n</EDKSYSTEM>\n"
DMA = 0x4040_0000
MONITOR = 0x43C0_0000


def _module(
    instance: str,
    kind: str,
    vlnv: str,
    parameters: Mapping[str, object],
    buses: Mapping[str, str],
    *memory: str,
) -> str:
    lines = [
        f'    <MODULE FULLNAME="/{instance}" INSTANCE="{instance}" IPTYPE="PERIPHERAL" IS_ENABLE="1" '
        f'MODTYPE="{kind}" VLNV="{vlnv}">',
        "      <PARAMETERS>",
        *(f'        <PARAMETER NAME="{name}" VALUE="{value}"/>' for name, value in parameters.items()),
        "      </PARAMETERS>",
        "      <PORTS>",
        '        <PORT CLKFREQUENCY="100000000" DIR="I" NAME="m_axi_mm2s_aclk" SIGIS="clk" SIGNAME="clock"/>',
        "      </PORTS>",
        "      <BUSINTERFACES>",
        *(
            f'        <BUSINTERFACE BUSNAME="{bus}" NAME="{name}" '
            f'TYPE="{"INITIATOR" if name.lower().startswith("m") else "TARGET"}" VLNV="xilinx.com:interface:axis:1.0"/>'
            for name, bus in buses.items()
        ),
        "      </BUSINTERFACES>",
        *(["      <MEMORYMAP>", *memory, "      </MEMORYMAP>"] if memory else []),
        "    </MODULE>",
    ]
    return "\n".join(lines) + "\n"


def _range(instance: str, base: int, span: int, bus: str) -> str:
    return (
        f'        <MEMRANGE ADDRESSBLOCK="Reg" BASENAME="C_BASEADDR" BASEVALUE="0x{base:08X}" HIGHNAME="C_HIGHADDR" '
        f'HIGHVALUE="0x{base + span - 1:08X}" INSTANCE="{instance}" IS_DATA="TRUE" IS_INSTRUCTION="TRUE" '
        f'MASTERBUSINTERFACE="M_AXI_GP0" MEMTYPE="REGISTER" SLAVEBUSINTERFACE="{bus}"/>'
    )


def hand_off(top: str = "net_axis", *, monitor: bool = True, scatter_gather: int = 0) -> str:
    """Return the .hwh of a PYNQ-Z2's design with the network ``top``."""
    dma = {
        "c_include_sg": scatter_gather,
        "c_sg_length_width": 26,
        "c_addr_width": 32,
        "c_include_mm2s": 1,
        "c_include_s2mm": 1,
        "c_m_axi_mm2s_data_width": 32,
        "c_m_axis_mm2s_tdata_width": 32,
        "c_m_axi_s2mm_data_width": 32,
        "c_s_axis_s2mm_tdata_width": 32,
    }
    ps = {
        "PCW_CRYSTAL_PERIPHERAL_FREQMHZ": 50,
        "PCW_FPGA0_PERIPHERAL_FREQMHZ": 100,
        "PCW_ACT_FPGA0_PERIPHERAL_FREQMHZ": "100.000000",
        "PCW_USE_M_AXI_GP0": 1,
        "PCW_USE_S_AXI_HP0": 1,
    }
    mapped = [_range("axi_dma_0", DMA, 0x10000, "S_AXI_LITE")]
    into, out_of = "axi_dma_0_M_AXIS_MM2S", f"{top}_0_m_axis"
    cells = []
    if monitor:
        mapped.append(_range("monitor_0", MONITOR, 0x10000, "s_axi"))
        streams = {
            "s_in": into,
            "m_in": "monitor_0_m_in",
            "s_out": out_of,
            "m_out": "monitor_0_m_out",
        }
        vlnv = "xilinx.com:module_ref:flow_monitor:1.0"
        cells.append(_module("monitor_0", "flow_monitor", vlnv, {"DESIGN_ID": "0x0"}, streams))
        given, back = "monitor_0_m_in", "monitor_0_m_out"
    else:
        given, back = into, out_of
    cells += [
        _module(
            "axi_dma_0",
            "axi_dma",
            "xilinx.com:ip:axi_dma:7.1",
            dma,
            {"M_AXIS_MM2S": into, "S_AXIS_S2MM": back},
        ),
        _module(f"{top}_0", top, f"xilinx.com:hls:{top}:1.0", {}, {"s_axis": given, "m_axis": out_of}),
        _module(
            "processing_system7_0",
            "processing_system7",
            "xilinx.com:ip:processing_system7:5.5",
            ps,
            {"M_AXI_GP0": "processing_system7_0_M_AXI_GP0"},
            *mapped,
        ),
    ]
    return HEAD.format(arch="zynq", device="7z020", package="clg400") + "".join(cells) + TAIL
