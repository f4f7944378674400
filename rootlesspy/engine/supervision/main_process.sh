# The main process of the service of a container whose supervisor rp has forked.
#
# systemd tells how a service's main process ends only where that is its own child.  The supervisor
# joins the service and tells this process how to end: by its exit status, as by SIGTERM if it was
# asked to, or, when it was killed itself, as by SIGKILL.
#
# Arguments: a file that names the supervisor (its pid, its start time and the descriptors of two
# pipes that it has: one to read from, one to write to), and the command that is the supervisor when
# systemd starts the service again.

card=$1
shift
pid='' reader='' writer=''
[ -e "$card" ] && read -r pid began reader writer <"$card"
[ -n "$writer" ] || exec "$@"

asked=''
trap 'asked=yes; lives 2>/dev/null && kill -TERM "$pid"' TERM
# As the supervisor, which gets them too where all processes of the unit do.
trap '' HUP INT

# As proc_pid_stat(5): the name, which is rp's own, holds no space; field 22 is the start time.
lives() {
    read -r _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ started _ <"/proc/$pid/stat" &&
        [ "$started" = "$began" ]
}

end() {
    trap - "$1"
    kill -s "$1" $$
}

{ lives && command exec 3<"/proc/$pid/fd/$reader" 4>"/proc/$pid/fd/$writer"; } 2>/dev/null || end TERM
echo here >&4
exec 4>&-
status=''
# A signal interrupts it; else the supervisor has ended without a word.
until read -r status <&3; do
    [ -n "$asked" ] || end KILL
    asked=''
done
[ "$status" != TERM ] || end TERM
exit "$status"
