# Read by the scripts of this folder.
set settings(board) {zcu104}
set settings(top) {net}
set settings(part) {xczu7ev-ffvc1156-2-e}
set settings(ps_type) {zynq_ultrascale}
set settings(clock_period_ns) {5}
set settings(clock_mhz) {200}
set settings(cosim) {0}
set settings(monitor) {1}
set settings(design_id) {e5abce42702a7b97}
set settings(jobs) {4}
set settings(ps) {
    PSU__PSS_REF_CLK__FREQMHZ {33.333333}
}
