# From the exported IP to a bitstream for a Zynq-7000: PS7, one AXI DMA and the network on one clock.
#
#   DDR <- HP0 <- SmartConnect <- AXI DMA -> (stream) network (stream) -> AXI DMA,   GP0 -> AXI DMA registers
#
# Run it in the folder that holds it, after vitis_hls.tcl:
#   vivado -mode batch -nojournal -source vivado_zynq7000.tcl
# It leaves <top>.bit, <top>.hwh, reports/utilization.rpt and reports/timing.rpt. Any failure ends it with
# exit status 1, and so does a clock that the routed design does not reach: then there is no <top>.bit.
# No board file is needed: settings.tcl has the PS's crystal, clock and memory.

# A namespace, because Vivado has a command 'step' of its own.
namespace eval flow {
    proc step {name} {
        puts "flow: step $name"
        flush stdout
    }

    # Add the newest version of an IP to the block design.
    proc add_ip {vlnv_pattern name} {
        set found [get_ipdefs -filter "VLNV =~ $vlnv_pattern && UPGRADE_VERSIONS == \"\""]
        if {[llength $found] != 1} {
            error "the IP catalog must hold $vlnv_pattern once, not [llength $found] times"
        }
        create_bd_cell -type ip -vlnv [lindex $found 0] $name
    }

    proc configure {cell values} {
        set config {}
        foreach {key value} $values {
            lappend config CONFIG.$key $value
        }
        set_property -dict $config [get_bd_cells $cell]
    }

    # Vivado only warns about a name that it does not find, and connects the others.
    proc one {objects name} {
        if {[llength $objects] != 1} {
            error "the block design must hold $name once, not [llength $objects] times"
        }
        return $objects
    }

    proc connect {args} {
        set pins {}
        foreach name $args {
            lappend pins [one [get_bd_pins $name] $name]
        }
        connect_bd_net {*}$pins
    }

    proc connect_interface {from to} {
        connect_bd_intf_net [one [get_bd_intf_pins $from] $from] [one [get_bd_intf_pins $to] $to]
    }

    proc require_complete {run} {
        set progress [get_property PROGRESS [get_runs $run]]
        if {$progress ne "100%"} {
            error "$run must reach 100%, not $progress ([get_property STATUS [get_runs $run]])"
        }
    }

    proc require_slack {kind} {
        set slack [get_property SLACK [get_timing_paths -$kind -max_paths 1]]
        if {![string is double -strict $slack]} {
            error "the worst $kind slack must be a number, not '$slack'"
        }
        puts "flow: worst $kind slack $slack ns"
        if {$slack < 0} {
            error "the worst $kind slack must be 0 ns or more, not $slack ns; raise clock_period_ns"
        }
    }

    proc add_cells {settings_ps clock_mhz top} {
        add_ip xilinx.com:ip:processing_system7:* processing_system7_0
        configure processing_system7_0 $settings_ps
        configure processing_system7_0 [list \
            PCW_FPGA0_PERIPHERAL_FREQMHZ $clock_mhz \
            PCW_USE_M_AXI_GP0 1 \
            PCW_USE_S_AXI_HP0 1 \
            PCW_USE_FABRIC_INTERRUPT 1 \
            PCW_IRQ_F2P_INTR 1]
        create_bd_intf_port -mode Master -vlnv xilinx.com:interface:ddrx_rtl:1.0 DDR
        create_bd_intf_port -mode Master -vlnv xilinx.com:display_processing_system7:fixedio_rtl:1.0 FIXED_IO

        # simple mode; 23 bits of length: up to 8 MiB a transfer
        add_ip xilinx.com:ip:axi_dma:* axi_dma_0
        configure axi_dma_0 {
            c_include_sg 0
            c_sg_include_stscntrl_strm 0
            c_sg_length_width 23
            c_include_mm2s 1
            c_m_axi_mm2s_data_width 32
            c_m_axis_mm2s_tdata_width 32
            c_include_s2mm 1
            c_m_axi_s2mm_data_width 32
        }
        add_ip *:hls:${top}_axis:* ${top}_axis_0
        add_ip xilinx.com:ip:proc_sys_reset:* reset_0
        add_ip xilinx.com:ip:smartconnect:* control_0
        configure control_0 {NUM_SI 1 NUM_MI 1}
        add_ip xilinx.com:ip:smartconnect:* memory_0
        configure memory_0 {NUM_SI 2 NUM_MI 1}
        add_ip xilinx.com:ip:xlconcat:* interrupts_0
        configure interrupts_0 {NUM_PORTS 2}
    }

    proc connect_cells {top} {
        connect_bd_intf_net [get_bd_intf_ports DDR] [get_bd_intf_pins processing_system7_0/DDR]
        connect_bd_intf_net [get_bd_intf_ports FIXED_IO] [get_bd_intf_pins processing_system7_0/FIXED_IO]
        connect_interface processing_system7_0/M_AXI_GP0 control_0/S00_AXI
        connect_interface control_0/M00_AXI axi_dma_0/S_AXI_LITE
        connect_interface axi_dma_0/M_AXI_MM2S memory_0/S00_AXI
        connect_interface axi_dma_0/M_AXI_S2MM memory_0/S01_AXI
        connect_interface memory_0/M00_AXI processing_system7_0/S_AXI_HP0
        connect_interface axi_dma_0/M_AXIS_MM2S ${top}_axis_0/s_axis
        connect_interface ${top}_axis_0/m_axis axi_dma_0/S_AXIS_S2MM

        connect processing_system7_0/FCLK_CLK0 \
            processing_system7_0/M_AXI_GP0_ACLK processing_system7_0/S_AXI_HP0_ACLK \
            axi_dma_0/s_axi_lite_aclk axi_dma_0/m_axi_mm2s_aclk axi_dma_0/m_axi_s2mm_aclk \
            ${top}_axis_0/ap_clk control_0/aclk memory_0/aclk reset_0/slowest_sync_clk
        connect processing_system7_0/FCLK_RESET0_N reset_0/ext_reset_in
        connect reset_0/peripheral_aresetn \
            axi_dma_0/axi_resetn ${top}_axis_0/ap_rst_n control_0/aresetn memory_0/aresetn
        connect axi_dma_0/mm2s_introut interrupts_0/In0
        connect axi_dma_0/s2mm_introut interrupts_0/In1
        connect interrupts_0/dout processing_system7_0/IRQ_F2P
    }

    proc build {settings_list} {
        array set settings $settings_list
        set top $settings(top)
        file mkdir reports
        file delete -force $top.bit $top.hwh reports/utilization.rpt reports/timing.rpt

        step "block design"
        create_project -force vivado vivado -part $settings(part)
        set_property ip_repo_paths [file normalize vitis/solution/impl/ip] [current_project]
        update_ip_catalog
        create_bd_design system
        add_cells $settings(ps) $settings(clock_mhz) $top
        connect_cells $top
        assign_bd_address
        validate_bd_design
        save_bd_design
        add_files -norecurse [make_wrapper -files [get_files system.bd] -top]
        set_property top system_wrapper [current_fileset]
        update_compile_order -fileset sources_1

        step "synthesis"
        launch_runs synth_1 -jobs $settings(jobs)
        wait_on_run synth_1
        require_complete synth_1

        step "implementation"
        launch_runs impl_1 -to_step write_bitstream -jobs $settings(jobs)
        wait_on_run impl_1
        require_complete impl_1

        step "reports"
        open_run impl_1
        report_utilization -file reports/utilization.rpt
        report_timing_summary -file reports/timing.rpt
        require_slack setup
        require_slack hold

        step "bitstream"
        file copy -force vivado/vivado.runs/impl_1/system_wrapper.bit $top.bit
        # Vivado 2020.2 moved it from .srcs to .gen
        set handoff [glob vivado/vivado.{gen,srcs}/sources_1/bd/system/hw_handoff/system.hwh]
        file copy -force [lindex $handoff 0] $top.hwh
    }
}

if {[catch {source settings.tcl; flow::build [array get settings]} message]} {
    puts stderr "ERROR: vivado_zynq7000.tcl: $message"
    exit 1
}
exit 0
