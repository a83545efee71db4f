# Says how the build at $place stands, and which of the programs "$@" are not on PATH.
state "$place"
for program in "$@"; do
    command -v "$program" >/dev/null 2>&1 || printf '%s\n' "$program"
done
