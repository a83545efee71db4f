# Prints the log of the build at $place from byte $offset on until the build ends, then a line of $token and its state.
cd -- "$place" || exit
while :; do
    ended=
    if read -r line 2>/dev/null <state; then
        ended=$line
    elif ! alive . && [ ! -e state ]; then # asked twice: it may have ended between the two
        ended='- died'
        printf '%s\n' "$ended" >state.part && mv state.part state || ended='- full'
    fi
    size=$(($(wc -c <log)))
    if [ $size -gt "$offset" ]; then
        tail -c +$((offset + 1)) log | head -c $((size - offset)) || exit
        offset=$size
    fi
    [ -n "$ended" ] && break
    sleep 1
done
printf '%s %s\n' "$token" "$ended" && : >told
