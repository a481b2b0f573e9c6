#!/usr/bin/env bash
# Installs, builds and runs every test that needs only Debian packages: see usage() below.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=deploy/packages.sh
source "$root/deploy/packages.sh"

usage() {
  cat <<'END'
usage: tests/run.sh [--only test|asan|tsan|fuzz] [ctest argument...]

Installs what is missing (Debian packages), builds three trees (build/test, build/asan, build/tsan), runs the gates of
tests/check.sh and then ctest in each tree; then builds build/fuzz and runs the fuzzers for some seconds
(tests/fuzz/run.sh, which takes more). The last line is "N passed, N failed": tests of all trees, gates and fuzzers.
--only takes one tree and no gates. Other arguments go to ctest: -R NAME, -V, --repeat until-fail:20
END
}

trees=(test asan tsan fuzz) gates=1
case ${1-} in
-h | --help)
  usage
  exit 0
  ;;
--only)
  case ${2-} in
  test | asan | tsan | fuzz) trees=("$2") gates=0 ;;
  *)
    usage >&2
    exit 64
    ;;
  esac
  shift 2
  ;;
esac

declare -A options=(
  [test]='-DCMAKE_BUILD_TYPE=RelWithDebInfo'
  # Debug keeps the assertions; -O1 keeps the sanitizers bearable.
  [asan]='-DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_FLAGS=-O1 -DRDRIVE_SANITIZE=address'
  [tsan]='-DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_FLAGS=-O1 -DRDRIVE_SANITIZE=thread'
)
export ASAN_OPTIONS='detect_leaks=1'
export UBSAN_OPTIONS='print_stacktrace=1'
# gRPC's own library is not instrumented: without this, what it synchronizes inside is taken for races of ours.
export TSAN_OPTIONS='ignore_noninstrumented_modules=1 halt_on_error=1'

passed=0 failed=0 summary=()

# count NAME PASSED FAILED [REMARK]
count() {
  passed=$((passed + $2)) failed=$((failed + $3))
  summary+=("$(printf '%-6s %4d ok %4d bad %s' "$1" "$2" "$3" "${4-}")")
}

build() { # TREE
  if [[ $1 == fuzz ]]; then
    "$root/tests/fuzz/run.sh" --build
    return
  fi
  # shellcheck disable=SC2086 # the options are words
  cmake -S "$root" -B "$root/build/$1" -G Ninja -DBUILD_TESTING=ON ${options[$1]} >/dev/null || return 1
  cmake --build "$root/build/$1"
}

run_gates() {
  local log=$root/build/check.log ok bad
  "$root/tests/check.sh" 2>&1 | tee "$log" || true # what failed is counted from the log
  ok=$(grep -c '^gate .*: ok$' "$log" || true)
  bad=$(grep -c '^gate .*: FAILED$' "$log" || true)
  ((ok + bad)) || bad=1 # it did not even begin
  count gates "$ok" "$bad"
}

run_tree() { # TREE [ctest argument...]
  local tree=$1 log=$root/build/$1-ctest.log status=0 bad total skipped remark='' prefix=()
  shift
  # gcc's thread sanitizer finds no room for its shadow where the kernel randomizes more than 28 bits of an address.
  if [[ $tree == tsan && $(cat /proc/sys/vm/mmap_rnd_bits 2>/dev/null) -gt 28 ]] && setarch -R true 2>/dev/null; then
    prefix=(setarch -R)
  fi
  # One more at a time than the smallest machine has cores: some tests mostly wait, for a clock's second or a drain.
  ${prefix[@]+"${prefix[@]}"} ctest --test-dir "$root/build/$tree" --output-on-failure --no-tests=error --timeout 240 \
    -j3 "$@" 2>&1 | tee "$log" || status=$?
  # "98% tests passed, 1 tests failed out of 50"; ctest takes a skipped test for a passed one, this does not.
  read -r bad total < <(sed -nE 's/^[0-9]+% tests passed, ([0-9]+) tests failed out of ([0-9]+)$/\1 \2/p' "$log") ||
    bad=0 total=0
  skipped=$(grep -cE '\*\*\*Skipped +[0-9.]+ sec' "$log" || true)
  ((skipped == 0)) || remark="($skipped skipped)"
  if ((status != 0 && bad == 0)); then
    count "$tree" 0 1 "(ctest ended with status $status, without a count)"
  else
    count "$tree" $((total - bad - skipped)) "$bad" "$remark"
  fi
}

run_fuzzers() {
  local log=$root/build/fuzz.log ok bad
  "$root/tests/fuzz/run.sh" 2>&1 | tee "$log" || true # what failed is counted from the log
  read -r ok bad < <(sed -nE '$s/^([0-9]+) passed, ([0-9]+) failed$/\1 \2/p' "$log") || ok=0 bad=1
  count fuzz "$ok" "$bad"
}

packages_install "${build_packages[@]}" "${test_packages[@]}"
mkdir -p "$root/build"

# All are built before anything runs: the gates read what the first tree generates. A failure does not stop the rest.
built=()
for tree in "${trees[@]}"; do
  echo "== build/$tree"
  if build "$tree"; then
    built+=("$tree")
  else
    count "$tree" 0 1 '(it does not build)'
  fi
done
if ((gates)); then
  echo "== gates"
  run_gates
fi
for tree in ${built[@]+"${built[@]}"}; do
  if [[ $tree == fuzz ]]; then
    echo "== fuzzers"
    run_fuzzers
    continue
  fi
  echo "== ctest in build/$tree"
  run_tree "$tree" "$@"
done

printf '\n'
printf '%s\n' "${summary[@]}"
echo "$passed passed, $failed failed"
((failed == 0))
