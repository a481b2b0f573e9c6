#!/usr/bin/env bash
# The soak at length, with the program that CI runs for some seconds: nightly it takes ten minutes or more.
# usage: tests/soak/run.sh [SECONDS [BUILD-FOLDER]]    (600, build/test)
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
seconds=${1:-600} build=${2:-build/test}

cmake --build "$build" --target rdrived rdrive rdrive_e2e_stubs
RDRIVE_BIN=$PWD/$build/bin
RDRIVE_STUBS=$PWD/$build/tests/e2e/stubs
RDRIVE_SANITIZE=$(sed -n 's/^RDRIVE_SANITIZE:[A-Z]*=//p' "$build/CMakeCache.txt")
export RDRIVE_BIN RDRIVE_STUBS RDRIVE_SANITIZE
export ASAN_OPTIONS='detect_leaks=1' UBSAN_OPTIONS='print_stacktrace=1'
export TSAN_OPTIONS='ignore_noninstrumented_modules=1 halt_on_error=1'
prefix=()
# gcc's thread sanitizer finds no room for its shadow where the kernel randomizes too much.
[[ $RDRIVE_SANITIZE != thread ]] || prefix=(setarch -R)
exec ${prefix[@]+"${prefix[@]}"} /usr/bin/python3 -B tests/soak/soak.py "$seconds"
