# What the scripts of a build share. Each of them sources this file, then settings.tcl.

# A namespace, because Vivado has a command 'step' of its own.
namespace eval ::flow {
    proc step {name} {
        puts "flow: step $name"
        flush stdout
    }

    # Run a script's build; whatever fails in it ends the program with exit status 1.
    proc main {script} {
        if {[catch {source settings.tcl; build [array get settings]} message]} {
            puts stderr "ERROR: $script: $message"
            exit 1
        }
        exit 0
    }

    proc require_file {path what} {
        if {![file exists $path]} {
            error "$what must leave $path, not end without it"
        }
    }

    # The routed design's reports, and its clock.
    proc report_routed {} {
        file mkdir reports
        report_utilization -file reports/utilization.rpt
        report_timing_summary -file reports/timing.rpt
        report_power -file reports/power.rpt
        require_slack setup
        require_slack hold
    }

    proc require_slack {kind} {
        set slack [get_property SLACK [get_timing_paths -$kind -max_paths 1]]
        if {![string is double -strict $slack]} {
            error "the worst $kind slack must be a number, not '$slack'"
        }
        puts "flow: worst $kind slack $slack ns"
        if {$slack < 0} {
            error "the worst $kind slack must be 0 ns or more, not $slack ns; raise synth_clk_period_ns"
        }
    }
}
