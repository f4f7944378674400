#!/bin/sh
# What a user of podman types, one command per step; it runs unchanged with rp as the ENGINE.
#
# Each step prints a line "== NAME: exit N, stdout N bytes, stderr N bytes" and then those bytes.
# tests/namespace/test_podman_script.py runs it with podman and with rp and compares the steps.
#
# ENGINE  the program
# PORT    a port of this machine that nobody uses
set -u
export LC_ALL=C.UTF-8 TZ=UTC
engine=$ENGINE
directory=$(mktemp -d)
work=$directory/work
mkdir "$work"
cd "$work" || exit 1

step() {
    (eval "$2") >"$directory/stdout" 2>"$directory/stderr" </dev/null
    code=$?
    out=$(wc -c <"$directory/stdout") err=$(wc -c <"$directory/stderr")
    printf '== %s: exit %d, stdout %d bytes, stderr %d bytes\n' "$1" "$code" "$out" "$err"
    cat "$directory/stdout" "$directory/stderr"
}

# Wait for something to come true; what is wrong otherwise is the next step's to show.
await() {
    for _ in $(seq 100); do
        if eval "$1" >"$directory/awaited" 2>&1; then
            return
        fi
        sleep 0.1
    done
}

# Images.
step pull '$engine pull alpine'
step pull-quiet '$engine pull -q docker.io/library/busybox:latest'
step pull-missing '$engine pull -q localhost:5000/no/such:image'
step images '$engine images'
step images-quiet '$engine images -q'
step images-format '$engine images --format "{{.Repository}}:{{.Tag}} {{.ID}} {{.Size}}"'
step images-filter '$engine images --filter reference=busybox --format "{{.Repository}}"'
step images-no-trunc '$engine images --no-trunc -q alpine'

# Running.
step run '$engine run --rm alpine echo hello'
step run-exit-code '$engine run --rm alpine sh -c "echo out; echo err >&2; exit 7"'
step run-no-such-command '$engine run --rm alpine no-such-command'

rm -rf "$directory"
