#!/bin/sh
# Verilator's make puts this in front of the compiler (OBJCACHE). Its runtime is the same in every simulation and takes
# longer than most tests' networks: compiled once, it is copied. What it depends on is in the name of the copy.
source= output= last= options=
for word; do
  case $word in */verilated*.cpp) source=$word ;; esac
  case $word in -I/*) ;; *) options="$options $word" ;; esac
  [ "$last" = -o ] && output=$word
  last=$word
done
[ "$source" ] || exec "$@"
made=$FLOW_TEST_OBJECTS/$({ "$1" --version; cat "${source%/*}"/*.h "$source"; echo "$options"; } | cksum | tr ' ' -).o
cp "$made" "$output" 2>/dev/null && exit
"$@" && mkdir -p "$FLOW_TEST_OBJECTS" && cp "$output" "$made.$$" && mv "$made.$$" "$made"
