#!/bin/sh
# Sourced by try and test: says what it does, installs what is missing, once.

repository=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
cd "$repository"
venv=$repository/.venv
rig=$repository/tests/rig/rig

if [ -t 2 ]; then mark=$(printf '\033[1m==\033[0m'); else mark='=='; fi
say() { printf '%s %s\n' "$mark" "$*" >&2; }

fail() {
    printf '%s: %s\n' "$(basename -- "$0")" "$*" >&2
    exit 1
}

# phase TEXT COMMAND…: one line with seconds; the command's output is shown only when it fails.
phase() {
    phase_text=$1
    shift
    phase_start=$(date +%s)
    printf '%s %s … ' "$mark" "$phase_text" >&2
    phase_log=$(mktemp)
    if "$@" >"$phase_log" 2>&1 </dev/null; then
        printf '%s s\n' "$(($(date +%s) - phase_start))" >&2
        rm -f "$phase_log"
    else
        printf 'failed\n' >&2
        tail -n 30 "$phase_log" >&2
        rm -f "$phase_log"
        exit 1
    fi
}

is_root() { [ "$(id -u)" -eq 0 ]; }

# An ordinary user whose user manager answers needs no rig.
user_manager_reachable() {
    ! is_root && systemctl --user show --property=Version >/dev/null 2>&1
}

as_root() {
    if is_root; then "$@"; else sudo "$@"; fi
}

# packages PACKAGE:PROGRAM…: install the Debian packages whose program is missing.
packages() {
    missing=
    for pair; do
        PATH=$PATH:/usr/sbin:/sbin command -v "${pair#*:}" >/dev/null || missing="$missing ${pair%%:*}"
    done
    [ -n "$missing" ] || return 0
    command -v apt-get >/dev/null ||
        fail "missing:$missing (cure: install them with your package manager)"
    is_root || command -v sudo >/dev/null ||
        fail "missing:$missing (cure: apt-get install$missing)"
    is_root || sudo -v
    phase "installing Debian packages:$missing" install_packages $missing
}

install_packages() {
    as_root env DEBIAN_FRONTEND=noninteractive sh -c '
        apt-get -q -y install --no-install-recommends "$@" && exit
        apt-get -q update
        apt-get -q -y install --no-install-recommends "$@"' sh "$@"
}

need_python() {
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
        fail "python3 3.11 or newer is needed (cure: apt-get install python3)"
}

# pystemd is on PyPI as source only: it is compiled against libsystemd and Python's headers.
need_compiler() {
    packages gcc:gcc pkg-config:pkg-config
    pkg-config --exists libsystemd || packages libsystemd-dev:no-program-of-its-own
    python3 -c 'import os, sysconfig as s; os.stat(s.get_path("include") + "/Python.h")' \
        2>/dev/null || packages python3-dev:no-program-of-its-own
}

# virtual_environment EXTRA: the project and its dependencies in .venv, anew when they changed.
virtual_environment() {
    if newer "$venv/dependencies$1" pyproject.toml; then
        need_python
        python3 -c 'import ensurepip' 2>/dev/null || packages python3-venv:no-program-of-its-own
        need_compiler
        phase "installing dependencies in .venv" install_dependencies "$1"
    fi
    if newer "$venv/package" rootlesspy pyproject.toml; then
        phase "installing rootlesspy in .venv" install_package
    fi
}

# newer STAMP PATH…: whether a file below the paths is newer than the stamp, or there is none.
newer() {
    newer_stamp=$1
    shift
    [ ! -e "$newer_stamp" ] ||
        [ -n "$(find "$@" -newer "$newer_stamp" -type f ! -name '*.pyc' | head -n 1)" ]
}

install_dependencies() {
    [ -x "$venv/bin/pip" ] || python3 -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet "setuptools>=66" wheel
    "$venv/bin/pip" install --quiet --no-build-isolation ".$1"
    clean_build
    touch "$venv/dependencies$1" "$venv/package"
}

install_package() {
    clean_build
    "$venv/bin/pip" install --quiet --no-deps --no-build-isolation --force-reinstall .
    clean_build
    touch "$venv/package"
}

# setuptools would pack modules that were deleted since.
clean_build() { rm -rf build rootlesspy.egg-info; }
