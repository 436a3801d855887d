# Ends a server for certain once gristmill ends, whatever ends it: SIGKILL leaves gristmill no time to do it.
#
# This shell leads the server's process group. Its standard input is a pipe from gristmill: one line with the
# server's process id, and the end of it when gristmill closes the pipe or is no more. Then the group gets SIGTERM;
# what is left once the server is gone, or after $1 tenths of a second, gets SIGKILL: what has left the group with
# setsid, and the group with this shell in it. While the shell lives the group's number is nobody else's.

trap '' HUP INT TERM

# When process $1 started: a number may be used again.
started() {
    read -r stat 2>/dev/null <"/proc/$1/stat" && set -- ${stat##*)} && echo "${20}"
}

# All that came of process $1, each with its start.
came_of() {
    for pid in $(cat /proc/"$1"/task/*/children 2>/dev/null); do
        echo "$pid:$(started "$pid")"
        came_of "$pid"
    done
}

read -r server && read -r _
tenths=$1
if [ -n "$server" ]; then
    # Told now: children of a process that has ended are not known as its children any more.
    children=$(came_of "$server")
    kill -TERM 0
    while [ "$tenths" -gt 0 ] && kill -0 "$server" 2>/dev/null; do
        sleep 0.1
        tenths=$((tenths - 1))
    done
    for child in $children; do
        [ "$(started "${child%:*}")" = "${child#*:}" ] && kill -KILL "${child%:*}"
    done
fi
kill -KILL 0
