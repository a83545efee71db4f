# A build: its commands one after the other, the first failure ends it. Nobody need be connected. $limit: the most
# seconds a command may take, or empty; $whole: the same, rounded down.
step() {
    index=$1
    log=$2
    shift 2
    [ -z "$limit" ] || set -- timeout -k 30 "$limit" "$@"
    before=$(($(wc -c <../log)))
    started=$(date +%s)
    "$@" >>../log 2>&1 </dev/null
    status=$?
    seconds=$(($(date +%s) - started))
    mkdir -p -- "$(dirname -- "$log")"
    tail -c +$((before + 1)) ../log >"$log"
    [ $status -eq 0 ] && return
    # what timeout says of a program that it ended (143: that of busybox); a program may say the same of itself
    case $status in 124 | 137 | 143) [ -n "$limit" ] && [ $seconds -ge "$whole" ] && status="expired $limit" ;; esac
    finish "$index $status"
}

finish() {
    printf '%s\n' "$1" >../state.part && mv ../state.part ../state
    exit
}

mark $$ >../mark.part && mv ../mark.part ../mark
