# Read by the scripts of this folder.
set settings(board) {zybo-z7-20}
set settings(top) {net}
set settings(part) {xc7z020clg400-1}
set settings(ps_type) {zynq7000}
set settings(clock_period_ns) {10}
set settings(clock_mhz) {100}
set settings(cosim) {0}
set settings(monitor) {1}
set settings(design_id) {cc666e5faee54d2b}
set settings(jobs) {4}
set settings(ps) {
    PCW_CRYSTAL_PERIPHERAL_FREQMHZ {33.333333}
    PCW_APU_PERIPHERAL_FREQMHZ {666.666666}
    PCW_UIPARAM_DDR_MEMORY_TYPE {DDR 3 (Low Voltage)}
    PCW_UIPARAM_DDR_PARTNO {MT41K256M16 RE-125}
    PCW_UIPARAM_DDR_BUS_WIDTH {32 Bit}
    PCW_UIPARAM_DDR_FREQ_MHZ {533.333333}
}
