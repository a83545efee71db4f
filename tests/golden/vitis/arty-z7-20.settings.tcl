# Read by the scripts of this folder.
set settings(board) {arty-z7-20}
set settings(top) {net}
set settings(part) {xc7z020clg400-1}
set settings(ps_type) {zynq7000}
set settings(clock_period_ns) {10}
set settings(clock_mhz) {100}
set settings(cosim) {0}
set settings(monitor) {1}
set settings(design_id) {55e9eab4d0104cd9}
set settings(jobs) {4}
set settings(ps) {
    PCW_CRYSTAL_PERIPHERAL_FREQMHZ {50}
    PCW_APU_PERIPHERAL_FREQMHZ {650}
    PCW_UIPARAM_DDR_MEMORY_TYPE {DDR 3}
    PCW_UIPARAM_DDR_PARTNO {MT41J256M16 RE-125}
    PCW_UIPARAM_DDR_BUS_WIDTH {16 Bit}
    PCW_UIPARAM_DDR_FREQ_MHZ {525}
}
