#!/usr/bin/env bash
# One way in: sets up .venv on first use, then runs.
#
#   ./launch.sh --config=configs/o1.py:tiny [ARGS…]   train (arguments of `python -m trm_jax.train`)
#   ./launch.sh test [--quick] [ARGS…]                run the tests (arguments of pytest)
#   ./launch.sh suite …                               run several presets and compare them (./launch.sh suite --help)
#   ./launch.sh --processes=N …                       any of these but test as N processes here that make one run
#   ./launch.sh python ARGS…                          any other command of the project, e.g. -m trm_jax.evaluate …
#
# Everything runs in this folder: a relative path among the arguments starts here, wherever launch.sh is called from.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

die() { echo "launch.sh: $*" >&2; exit 1; }

# A Python that this is tested with: for a newer one pip may find no wheels of what is pinned, and set out to compile.
find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11 python; do
        [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
            2>/dev/null || continue
        echo "launch.sh: taking $candidate, $("$candidate" --version)" >&2
        echo "$candidate"
        return
    done
    die "needs Python 3.11, 3.12 or 3.13, which the pinned packages have wheels for (set PYTHON=… to name one); python3" \
        "is $(python3 --version 2>/dev/null || echo not there)"
}

# The CUDA extra that the driver can run, nothing without a GPU.
accelerator() {
    local cuda
    cuda=$(nvidia-smi 2>/dev/null | sed -n 's/.*CUDA Version: *\([0-9]*\).*/\1/p' | head -n 1) || true
    [ -z "$cuda" ] || { [ "$cuda" -ge 13 ] && echo cuda13 || echo cuda12; }
}

# Installs the package with the extras given, unless that has been done with these very files. Of several first starts
# at once one installs, and the others wait.
setup() {
    exec 9>.setup.lock
    ! command -v flock >/dev/null || flock 9
    install_once "$@"
    exec 9>&-
}

install_once() {
    local extras="$1" stamp=.venv/.installed wanted python
    wanted="$extras $(cat pyproject.toml constraints.txt | cksum)"
    [ -x .venv/bin/python ] && grep -qxF "$wanted" "$stamp" 2>/dev/null && return
    if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then  # there is none, or it was left half-made
        echo "launch.sh: first use, setting up .venv (a few minutes)" >&2
        python=$(find_python) || exit 1
        "$python" -m venv --clear .venv \
            || { rm -rf .venv; die "could not make .venv; on Debian: apt-get install python3-venv"; }
    fi
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".${extras:+[$extras]}" \
        || die "installation failed"
    echo "$wanted" >>"$stamp"
}

join() { local IFS=,; echo "$*"; }

mode=train; processes=()
case "${1:-}" in --processes=*) processes=(tools/processes.py "${1#*=}" .venv/bin/python); shift ;; esac
case "${1:-}" in
    test | suite | python) mode=$1; shift ;;
    "" | -h | --help) sed -n '2,/^set/{s/^# \{0,1\}//p}' "$0"; exit ;;
esac

# glibc gets the memory of a step from the system in large pages: of small ones 35,000 had to be cleared each time, a third
# of a tiny step on CPU. Elsewhere it means nothing.
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}

gpu=$(accelerator)
case $mode in
    train) setup "$gpu"; exec .venv/bin/python ${processes[@]+"${processes[@]}"} -m trm_jax.train "$@" ;;
    python) setup "$gpu"; exec .venv/bin/python ${processes[@]+"${processes[@]}"} "$@" ;;
    suite) setup "$gpu"; exec .venv/bin/python -m tools.suite ${processes[1]:+"--processes=${processes[1]}"} "$@" ;;
    test) [ -z "${processes[*]:-}" ] || die "the tests run as one process"; setup "$(join ${gpu:+"$gpu"} dev)"; exec .venv/bin/python -m pytest "$@" ;;
esac
