# The network alone, placed and routed out of context: what it takes and how fast it is, without a bitstream.
#
# Run it in the folder that holds it, after vitis_hls.tcl:
#   vivado -mode batch -nojournal -source vivado_ooc.tcl
# It leaves reports/ and <top>_ooc.dcp. Any failure ends it with exit status 1, and so does a clock that the routed
# network does not reach.

source common.tcl

namespace eval ::flow {
    proc build {settings_list} {
        array set settings $settings_list
        set top $settings(top)
        file delete -force ${top}_ooc.dcp reports/utilization.rpt reports/timing.rpt reports/power.rpt

        step "synthesis"
        create_project -in_memory -part $settings(part)
        add_files vitis/solution/syn/verilog
        # cores of the vendor's that HLS asks for, such as those of floating point
        foreach script [lsort [glob -nocomplain vitis/solution/syn/verilog/*_ip.tcl]] {
            source $script
        }
        synth_design -top ${top}_axis -part $settings(part) -mode out_of_context
        create_clock -period $settings(clock_period_ns) -name ap_clk [get_ports ap_clk]

        step "implementation"
        opt_design
        place_design
        route_design

        step "reports"
        report_routed
        write_checkpoint -force ${top}_ooc.dcp
    }
}

::flow::main vivado_ooc.tcl
