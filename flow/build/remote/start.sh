# Turns the folder $part, with the build's script on stdin, into the build $place and starts it, unless another has
# done so.
lock=$root/.lock-$key
tries=0
until mkdir "$lock"; do # it is held for seconds: what is older was left by a host that went down
    tries=$((tries + 1))
    [ $tries -eq 60 ] && rmdir "$lock"
    [ $tries -gt 60 ] && exit 1
    sleep 1
done
trap 'rmdir "$lock"' EXIT

launch() {
    cat >"$part/job.sh"
    [ $(($(wc -c <"$part/job.sh"))) -eq "$size" ] || exit 1 # the connection was cut
    rm -rf -- "$place"
    mv -- "$part" "$place"
    ( # nohup without a program of that name, which busybox may lack; why it cannot start stands in the log
        trap '' HUP
        cd -- "$place/work" && setsid sh ../job.sh </dev/null >../log 2>&1 &
    )
    state "$place" >/dev/null # who follows must find its mark
}

for old in "$root"/*; do
    case ${old##*/} in "$key" | *[!0-9a-f]*) continue ;; esac # a key is hexadecimal
    [ -n "$(find "$old/state" -mtime +30 2>/dev/null)" ] && rm -rf -- "$old"
done
case $(state "$place") in
absent | failed) launch ;;
*) rm -rf -- "$part" ;;
esac
