#!/bin/sh
# Vivado, with what its runs write meanwhile: it starts them as processes of their own and shows nothing of them.
set -u
rm -rf vivado # of an earlier build: its logs are not this one's
tail -q -n 0 -F vivado/vivado.runs/synth_1/runme.log vivado/vivado.runs/impl_1/runme.log 2>/dev/null &
follower=$!
trap 'kill "$follower" 2>/dev/null' EXIT
vivado -mode batch -nojournal -source vivado.tcl
status=$?
sleep 1 # the last lines
exit "$status"
