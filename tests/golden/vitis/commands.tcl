# The vendor's commands that the scripts may use: document, options (with ':' those that take a value), and how many
# other words. Anything else fails the tests, as it would fail in the tool.
#
#   UG1399  Vitis High-Level Synthesis User Guide, "Vitis HLS Command Reference" (2022.2 to 2025.1)
#   UG835   Vivado Design Suite Tcl Command Reference Guide (2022.2 to 2025.1)

set commands {
    open_project            UG1399  {-reset}                                    1 1
    set_top                 UG1399  {}                                          1 1
    add_files.hls           UG1399  {-tb -cflags: -csimflags: -blackbox:}       1 1
    open_solution           UG1399  {-reset -flow_target:}                      1 1
    set_part                UG1399  {}                                          1 1
    create_clock.hls        UG1399  {-period: -name:}                           0 1
    config_compile          UG1399  {-name_max_length: -pipeline_loops: -unsafe_math_optimizations} 0 0
    csim_design             UG1399  {-argv: -clean -O -setup -ldflags: -mflags:} 0 0
    csynth_design           UG1399  {-dump_cfg -dump_post_cfg -synthesis_check} 0 0
    cosim_design            UG1399  {-rtl: -tool: -trace_level: -argv: -O -setup} 0 0
    export_design           UG1399  {-format: -version: -vendor: -library: -flow: -rtl: -output: -description:} 0 0

    create_project          UG835   {-part: -force -in_memory -ip -rtl_kernel -quiet -verbose} 0 2
    current_project         UG835   {-quiet -verbose}                           0 1
    current_fileset         UG835   {-constrset -simset -blockset}              0 1
    add_files.vivado        UG835   {-norecurse -fileset: -scan_for_includes -copy_to:} 1 -
    update_compile_order    UG835   {-fileset:}                                 0 0
    update_ip_catalog       UG835   {-rebuild}                                  0 0
    set_property            UG835   {-dict:}                                    1 3
    get_property            UG835   {-min -max}                                 2 2
    get_ipdefs              UG835   {-regexp -nocase -all -filter:}             0 1
    get_files               UG835   {-regexp -nocase -filter: -of_objects:}     0 1
    create_bd_design        UG835   {-dir: -cell:}                              1 1
    create_bd_cell          UG835   {-vlnv: -type: -reference:}                 1 1
    create_bd_intf_port     UG835   {-mode: -vlnv:}                             1 1
    get_bd_cells            UG835   {-hierarchical -filter: -of_objects:}       0 1
    get_bd_pins             UG835   {-hierarchical -filter: -of_objects:}       0 1
    get_bd_intf_pins        UG835   {-hierarchical -filter: -of_objects:}       0 1
    get_bd_intf_ports       UG835   {-filter: -of_objects:}                     0 1
    connect_bd_net          UG835   {-net:}                                     2 -
    connect_bd_intf_net     UG835   {-intf_net:}                                2 2
    assign_bd_address       UG835   {-target_address_space: -offset: -range: -master_range: -external} 0 -
    validate_bd_design      UG835   {-force -design:}                           0 0
    save_bd_design          UG835   {}                                          0 1
    make_wrapper            UG835   {-top -testbench -inst_template -fileset: -import -force -files:} 0 0
    launch_runs             UG835   {-jobs: -scripts_only -to_step: -next_step -dir:} 1 -
    wait_on_run             UG835   {-timeout:}                                 1 1
    get_runs                UG835   {-regexp -nocase -filter:}                  0 1
    open_run                UG835   {-name: -pr_config:}                        1 1
    report_utilization      UG835   {-file: -hierarchical -cells: -format:}     0 0
    report_timing_summary   UG835   {-file: -max_paths: -delay_type: -warn_on_violation} 0 0
    report_power            UG835   {-file: -xpe: -format:}                     0 0
    get_timing_paths        UG835   {-setup -hold -max_paths: -nworst: -from: -to:} 0 0
    synth_design            UG835   {-top: -part: -mode: -flatten_hierarchy: -include_dirs: -generic:} 0 0
    create_clock.vivado     UG835   {-period: -name: -waveform: -add}           0 1
    get_ports               UG835   {-regexp -nocase -filter: -of_objects:}     0 1
    opt_design              UG835   {-directive:}                               0 0
    place_design            UG835   {-directive:}                               0 0
    route_design            UG835   {-directive:}                               0 0
    write_checkpoint        UG835   {-force -cell:}                             1 1
}

# What calls a vendor command is checked against its row; the program tells commands of one name apart.
proc allowed {program words} {
    set name [lindex $words 0]
    foreach {known document options least most} $::commands {
        if {$known in [list $name $name.$program]} {
            return [allowed_words $words $document $options $least $most]
        }
    }
    error "$name must be a command of the table, not unknown to it"
}

proc allowed_words {words document options least most} {
    set name [lindex $words 0]
    set plain 0
    for {set i 1} {$i < [llength $words]} {incr i} {
        set word [lindex $words $i]
        if {"$word:" in $options} {
            if {[incr i] >= [llength $words]} {
                error "$name $word must have a value ($document)"
            }
        } elseif {[regexp {^-[a-zA-Z]} $word]} {
            if {$word ni $options} {
                error "$name must have an option of $document, not $word"
            }
        } else {
            incr plain
        }
    }
    if {$plain < $least || ($most ne "-" && $plain > $most)} {
        error "$name must have $least to $most words beside its options ($document), not $plain: $words"
    }
}
