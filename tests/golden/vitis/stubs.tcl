# Stands in for Vitis HLS and Vivado: every command that Tcl itself lacks must be one of commands.tcl, and is written
# to calls.txt.
#   tclsh stubs.tcl <script>
# FAIL=<command> makes that command fail, LOST=<name> hides a pin; SLACK-setup, SLACK-hold, PROGRESS, IPS, CLOCK,
# HANDOFF and NO_IP change what the tools answer and leave.

source [file join [file dirname [info script]] commands.tcl]
set program [expr {[string match *vitis_hls* [lindex $argv 0]] ? "hls" : "vivado"}]

proc answer {name default} {
    return [expr {[info exists ::env($name)] ? $::env($name) : $default}]
}

proc touch {path} {
    file mkdir [file dirname $path]
    close [open $path w]
}

proc unknown {args} {
    allowed $::program $args
    set log [open calls.txt a]
    puts $log [string map [list [pwd] <folder>] $args]
    close $log
    set command [lindex $args 0]
    if {$command eq [answer FAIL ""]} {
        error "$command failed"
    }
    switch -- $command {
        set_property { regexp {(?:FPGA0_PERIPHERAL|PL0_REF_CTRL_)_FREQMHZ (\S+)} $args all ::clock_mhz }
        csynth_design { touch vitis/solution/syn/report/csynth.xml }
        export_design { if {![info exists ::env(NO_IP)]} { touch vitis/solution/impl/ip/component.xml } }
        get_ipdefs { return [lrepeat [answer IPS 1] [lindex [lindex $args 2] 2]] }
        get_bd_pins { return [expr {[lindex $args 1] eq [answer LOST ""] ? "" : [lindex $args 1]}] }
        get_bd_cells - get_bd_intf_pins - get_bd_intf_ports - get_files - get_runs - get_ports { return [lindex $args 1] }
        current_project - current_fileset { return $command }
        get_timing_paths { return [string trimleft [lindex $args 1] -] }
        make_wrapper { return wrapper.v }
        write_checkpoint { touch [lindex $args 2] }
        get_property {
            switch -glob -- [lindex $args 1] {
                PROGRESS { return [answer PROGRESS 100%] }
                STATUS { return "synth_design ERROR" }
                SLACK { return [answer SLACK-[lindex $args 2] 0.25] }
                CONFIG.*ACT* { return [answer CLOCK $::clock_mhz] }
            }
        }
        launch_runs {
            touch vivado/vivado.runs/[lindex $args 1]/runme.log
            if {[lindex $args 1] eq "impl_1"} {
                touch vivado/vivado.runs/impl_1/system_wrapper.bit
                touch vivado/vivado.[answer HANDOFF gen]/sources_1/bd/system/hw_handoff/system.hwh
            }
        }
    }
    return ""
}

source [lindex $argv 0]
