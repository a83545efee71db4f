# The processor of a Zynq UltraScale+ in the block design of vivado.tcl.
#
# settings(ps) has its crystal, from the board's file: no vendor's board file is needed. Memory and pins of the
# processor stay Vivado's defaults: Linux on the board has set them up before it loads the bitstream, from its own
# boot image, and none of them is in the bitstream. The ports keep their widths of 128 bits, which is what the
# processor has after a reset.

namespace eval ::flow {
    # Names in this block design: pins and interfaces of the processor.
    variable ps
    array set ps {
        cell          zynq_ultra_ps_e_0
        clock         zynq_ultra_ps_e_0/pl_clk0
        reset         zynq_ultra_ps_e_0/pl_resetn0
        control       zynq_ultra_ps_e_0/M_AXI_HPM0_FPD
        memory        zynq_ultra_ps_e_0/S_AXI_HP0_FPD
        actual_mhz    CONFIG.PSU__CRL_APB__PL0_REF_CTRL__ACT_FREQMHZ
    }
    set ps(own_clocks) {zynq_ultra_ps_e_0/maxihpm0_fpd_aclk zynq_ultra_ps_e_0/saxihp0_fpd_aclk}
    # memory lies above 4 GiB, too
    variable dma_address_bits 40

    proc add_ps {settings_ps clock_mhz} {
        add_ip xilinx.com:ip:zynq_ultra_ps_e:* zynq_ultra_ps_e_0
        configure zynq_ultra_ps_e_0 $settings_ps
        configure zynq_ultra_ps_e_0 [list \
            PSU__FPGA_PL0_ENABLE 1 \
            PSU__CRL_APB__PL0_REF_CTRL__FREQMHZ $clock_mhz \
            PSU__USE__M_AXI_GP0 1 \
            PSU__USE__M_AXI_GP1 0 \
            PSU__USE__M_AXI_GP2 0 \
            PSU__USE__S_AXI_GP2 1 \
            PSU__MAXIGP0__DATA_WIDTH 128 \
            PSU__SAXIGP2__DATA_WIDTH 128]
    }
}
