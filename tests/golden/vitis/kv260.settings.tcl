# Read by the scripts of this folder.
set settings(board) {kv260}
set settings(top) {net}
set settings(part) {xck26-sfvc784-2LV-c}
set settings(ps_type) {zynq_ultrascale}
set settings(clock_period_ns) {5}
set settings(clock_mhz) {200}
set settings(cosim) {0}
set settings(monitor) {1}
set settings(design_id) {dbd2163b2e6ed0fd}
set settings(jobs) {4}
set settings(ps) {
    PSU__PSS_REF_CLK__FREQMHZ {33.333333}
}
