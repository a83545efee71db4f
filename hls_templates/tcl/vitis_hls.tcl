# From the HLS project to an IP for Vivado: C simulation, synthesis, (cosimulation,) export.
#
# Run it in the folder that holds it, beside common.tcl, settings.tcl and hls/:
#   vitis_hls -f vitis_hls.tcl                     (Vitis HLS 2022.2 to 2024.1)
#   vitis-run --mode hls --tcl vitis_hls.tcl       (Vitis 2024.2 and newer)
# It leaves vitis/solution/impl/ip/ and reports/csynth.xml. Any failure ends it with exit status 1.

source common.tcl

namespace eval ::flow {
    proc build {settings_list} {
        array set settings $settings_list
        set top $settings(top)
        set flags "-std=c++14 -I. -Ihls/firmware"

        step "open HLS project"
        file mkdir reports
        file delete -force reports/csynth.xml vitis
        open_project -reset vitis
        set_top ${top}_axis
        add_files hls/firmware/${top}_axis.cpp -cflags $flags
        add_files hls/firmware/${top}.cpp -cflags $flags
        # tb/emulation stays off the include path: Vitis brings its own ap_axi_sdata.h
        add_files -tb hls/tb/testbench.cpp -cflags "$flags -Ihls/tb"
        add_files -tb hls/tb_data
        # C simulation reads the weights from text; a network without weights has no such folder
        if {[file isdirectory hls/firmware/weights]} {
            add_files -tb hls/firmware/weights
        }
        open_solution -reset -flow_target vivado solution
        set_part $settings(part)
        create_clock -period $settings(clock_period_ns) -name default
        # names of hls4ml's template instances would make file names longer than a file system takes
        config_compile -name_max_length 80

        # the test bench compares every output and exits with 1 on a difference, which fails this step
        step "C simulation"
        csim_design

        step "C synthesis"
        csynth_design
        file copy -force vitis/solution/syn/report/csynth.xml reports/csynth.xml

        if {$settings(cosim)} {
            step "cosimulation"
            cosim_design -rtl verilog
        }

        step "export IP"
        export_design -format ip_catalog -version 1.0.0
        require_file vitis/solution/impl/ip/component.xml "the export"
    }
}

::flow::main vitis_hls.tcl
