# The processor of a Zynq-7000 in the block design of vivado.tcl.
#
# settings(ps) has its crystal, its clock and its memory, from the board's file: no vendor's board file is needed.
# Linux on the board has set up the processor before it loads the bitstream; only the fabric's clock and ports
# have to be right here, and what Vivado checks.

namespace eval ::flow {
    # Names in this block design: pins and interfaces of the processor.
    variable ps
    array set ps {
        cell          processing_system7_0
        clock         processing_system7_0/FCLK_CLK0
        reset         processing_system7_0/FCLK_RESET0_N
        control       processing_system7_0/M_AXI_GP0
        memory        processing_system7_0/S_AXI_HP0
        actual_mhz    CONFIG.PCW_ACT_FPGA0_PERIPHERAL_FREQMHZ
    }
    set ps(own_clocks) {processing_system7_0/M_AXI_GP0_ACLK processing_system7_0/S_AXI_HP0_ACLK}
    variable dma_address_bits 32

    proc add_ps {settings_ps clock_mhz} {
        add_ip xilinx.com:ip:processing_system7:* processing_system7_0
        configure processing_system7_0 $settings_ps
        configure processing_system7_0 [list \
            PCW_FPGA0_PERIPHERAL_FREQMHZ $clock_mhz \
            PCW_USE_M_AXI_GP0 1 \
            PCW_USE_S_AXI_HP0 1]
        create_bd_intf_port -mode Master -vlnv xilinx.com:interface:ddrx_rtl:1.0 DDR
        create_bd_intf_port -mode Master -vlnv xilinx.com:display_processing_system7:fixedio_rtl:1.0 FIXED_IO
        foreach name {DDR FIXED_IO} {
            connect_bd_intf_net [get_bd_intf_ports $name] [get_bd_intf_pins processing_system7_0/$name]
        }
    }
}
