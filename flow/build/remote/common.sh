# What the scripts beside this file share. A build lies in a folder of its own: work/ the files, log what its
# programs printed, mark its process, state its end ("INDEX STATUS"), told that somebody has heard of that end.

# What tells process $1 from a later one of the same number: when it started, and after which boot.
mark() {
    set -- "$1" $(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null)
    case ${2-Z} in Z | X) return 1 ;; esac # ended; a zombie waits for a parent that may never ask
    echo "$1 ${21} $(cat /proc/sys/kernel/random/boot_id)"
}

# Does the build at $1 run?
alive() {
    read -r pid rest 2>/dev/null <"$1/mark" && [ "$(mark "$pid")" = "$pid $rest" ]
}

# The build at $1: absent, done, failed (and told), or there: to be followed, whether it runs or not.
state() {
    waited=0
    while [ -d "$1" ] && [ ! -e "$1/mark" ] && [ $waited -lt 300 ]; do # somebody is starting it
        sleep 0.1
        waited=$((waited + 1))
    done
    if [ ! -d "$1" ]; then
        echo absent
    elif ! read -r index status rest 2>/dev/null <"$1/state"; then
        echo there
    elif [ "$status" = 0 ]; then
        echo 'done'
    elif [ -e "$1/told" ]; then
        echo failed
    else
        echo there
    fi
}
