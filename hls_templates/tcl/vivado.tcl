# From the exported IP to a bitstream: the processor, one AXI DMA and the network on one clock.
#
#   memory <- SmartConnect <- AXI DMA -> (stream) monitor, network, monitor (stream) -> AXI DMA
#   processor -> SmartConnect -> registers of the DMA and of the monitor
#
# Run it in the folder that holds it, after vitis_hls.tcl:
#   sh vivado.sh        or        vivado -mode batch -nojournal -source vivado.tcl
# It leaves <top>.bit, <top>.hwh and reports/. Any failure ends it with exit status 1, and so does a clock that the
# routed design does not reach: then there is no <top>.bit. There are no interrupts: the driver asks the registers.

source common.tcl

namespace eval ::flow {
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

    # What a run wrote is kept in logs/, where it is looked for when something fails.
    proc run {name args} {
        launch_runs $name {*}$args
        wait_on_run $name
        set log vivado/vivado.runs/$name/runme.log
        if {[file exists $log]} {
            file mkdir logs
            file copy -force $log logs/$name.log
        }
        set progress [get_property PROGRESS [get_runs $name]]
        if {$progress ne "100%"} {
            error "$name must reach 100%, not $progress ([get_property STATUS [get_runs $name]])"
        }
    }

    # The processor divides its clock from a PLL, and takes the nearest that it can make. A slower one only costs time;
    # with a faster one the network that HLS made could miss it.
    proc check_clock {wanted_mhz} {
        variable ps
        set actual [get_property $ps(actual_mhz) [get_bd_cells $ps(cell)]]
        if {![string is double -strict $actual]} {
            error "the fabric clock must be a number of MHz, not '$actual'"
        }
        puts "flow: fabric clock $actual MHz"
        if {$actual > 1.01 * $wanted_mhz || $actual < 0.9 * $wanted_mhz} {
            error "the fabric clock must be the HLS clock, $wanted_mhz MHz, or up to a tenth slower, not $actual MHz;\
                set synth_clk_period_ns to [format %.4g [expr {1000.0 / $actual}]]"
        }
    }

    proc add_cells {top monitor} {
        variable dma_address_bits
        # simple mode; 26 bits of length: below 64 MiB a transfer
        add_ip xilinx.com:ip:axi_dma:* axi_dma_0
        configure axi_dma_0 [list \
            c_include_sg 0 \
            c_sg_include_stscntrl_strm 0 \
            c_sg_length_width 26 \
            c_addr_width $dma_address_bits \
            c_include_mm2s 1 \
            c_m_axi_mm2s_data_width 32 \
            c_m_axis_mm2s_tdata_width 32 \
            c_include_s2mm 1 \
            c_m_axi_s2mm_data_width 32]
        add_ip *:hls:${top}_axis:* ${top}_axis_0
        add_ip xilinx.com:ip:proc_sys_reset:* reset_0
        add_ip xilinx.com:ip:smartconnect:* control_0
        configure control_0 [list NUM_SI 1 NUM_MI [expr {1 + $monitor}]]
        add_ip xilinx.com:ip:smartconnect:* memory_0
        configure memory_0 {NUM_SI 2 NUM_MI 1}
        if {$monitor} {
            create_bd_cell -type module -reference flow_monitor monitor_0
        }
    }

    proc connect_buses {} {
        variable ps
        connect_interface $ps(control) control_0/S00_AXI
        connect_interface control_0/M00_AXI axi_dma_0/S_AXI_LITE
        connect_interface axi_dma_0/M_AXI_MM2S memory_0/S00_AXI
        connect_interface axi_dma_0/M_AXI_S2MM memory_0/S01_AXI
        connect_interface memory_0/M00_AXI $ps(memory)
    }

    proc connect_streams {top monitor} {
        if {!$monitor} {
            connect_interface axi_dma_0/M_AXIS_MM2S ${top}_axis_0/s_axis
            connect_interface ${top}_axis_0/m_axis axi_dma_0/S_AXIS_S2MM
            return
        }
        connect_interface control_0/M01_AXI monitor_0/s_axi
        connect_interface axi_dma_0/M_AXIS_MM2S monitor_0/s_in
        connect_interface monitor_0/m_in ${top}_axis_0/s_axis
        connect_interface ${top}_axis_0/m_axis monitor_0/s_out
        connect_interface monitor_0/m_out axi_dma_0/S_AXIS_S2MM
    }

    proc connect_clock {top monitor} {
        variable ps
        set clocks [list {*}$ps(own_clocks) \
            axi_dma_0/s_axi_lite_aclk axi_dma_0/m_axi_mm2s_aclk axi_dma_0/m_axi_s2mm_aclk \
            ${top}_axis_0/ap_clk control_0/aclk memory_0/aclk reset_0/slowest_sync_clk]
        set resets {axi_dma_0/axi_resetn control_0/aresetn memory_0/aresetn}
        if {$monitor} {
            lappend clocks monitor_0/aclk
            lappend resets monitor_0/aresetn
            # the host can start the network anew
            connect monitor_0/network_aresetn ${top}_axis_0/ap_rst_n
        } else {
            lappend resets ${top}_axis_0/ap_rst_n
        }
        connect $ps(clock) {*}$clocks
        connect $ps(reset) reset_0/ext_reset_in
        connect reset_0/peripheral_aresetn {*}$resets
    }

    proc block_design {top monitor settings_ps clock_mhz} {
        create_bd_design system
        add_ps $settings_ps $clock_mhz
        check_clock $clock_mhz
        add_cells $top $monitor
        connect_clock $top $monitor
        connect_buses
        connect_streams $top $monitor
        assign_bd_address
        validate_bd_design
        save_bd_design
        add_files -norecurse [make_wrapper -files [get_files system.bd] -top]
        set_property top system_wrapper [current_fileset]
        update_compile_order -fileset sources_1
    }

    proc build {settings_list} {
        array set settings $settings_list
        set top $settings(top)
        source vivado_$settings(ps_type).tcl
        file delete -force $top.bit $top.hwh reports/utilization.rpt reports/timing.rpt reports/power.rpt

        step "block design"
        create_project -force vivado vivado -part $settings(part)
        set_property ip_repo_paths [file normalize vitis/solution/impl/ip] [current_project]
        update_ip_catalog
        if {$settings(monitor)} {
            add_files -norecurse flow_monitor.v
            update_compile_order -fileset sources_1
        }
        block_design $top $settings(monitor) $settings(ps) $settings(clock_mhz)

        step "synthesis"
        run synth_1 -jobs $settings(jobs)

        step "implementation"
        run impl_1 -to_step write_bitstream -jobs $settings(jobs)

        step "reports"
        open_run impl_1
        report_routed

        step "bitstream"
        # Vivado 2020.2 moved it from .srcs to .gen
        set handoff [glob vivado/vivado.{gen,srcs}/sources_1/bd/system/hw_handoff/system.hwh]
        file copy -force [lindex $handoff 0] $top.hwh
        file copy -force vivado/vivado.runs/impl_1/system_wrapper.bit $top.bit
    }
}

::flow::main vivado.tcl
