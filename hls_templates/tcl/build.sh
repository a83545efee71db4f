#!/bin/sh
# The whole build, on any machine with Vitis HLS and Vivado: sh build.sh
set -eu
cd "$(dirname "$0")"
if command -v vitis_hls >/dev/null; then
    vitis_hls -f vitis_hls.tcl
elif command -v vitis-run >/dev/null; then
    vitis-run --mode hls --tcl vitis_hls.tcl
else
    echo "build: 'vitis_hls' or 'vitis-run' must be on PATH, not missing; source Vitis' settings64.sh" >&2
    exit 1
fi
if [ -f vivado_ooc.tcl ]; then
    vivado -mode batch -nojournal -source vivado_ooc.tcl
else
    sh vivado.sh
fi
