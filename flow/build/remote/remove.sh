# Removes the build at $place; one that runs is ended first, with all that it started.
if alive "$place"; then
    pkill -KILL -s "$pid" || kill -KILL -- "-$pid"
fi
rm -rf -- "$place"
