# Read by the scripts of this folder.
set settings(board) {ultra96-v2}
set settings(top) {net}
set settings(part) {xczu3eg-sbva484-1-i}
set settings(ps_type) {zynq_ultrascale}
set settings(clock_period_ns) {5}
set settings(clock_mhz) {200}
set settings(cosim) {0}
set settings(monitor) {1}
set settings(design_id) {bbc3afe51118a8bb}
set settings(jobs) {4}
set settings(ps) {
    PSU__PSS_REF_CLK__FREQMHZ {33.333333}
}
