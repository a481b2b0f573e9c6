#!/usr/bin/env bash
# Builds and runs the fuzzers: see usage() below.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
tree=$root/build/fuzz

usage() {
  cat <<'END'
usage: tests/fuzz/run.sh [SECONDS | --build]

Builds build/fuzz with clang, replays each fuzzer's corpus (tests/fuzz/corpus, and the fixtures as files), and lets each
look for new inputs: without SECONDS for a fixed number of runs from a fixed seed and that corpus alone, in its order, so
that such runs are alike, but for the index's secret and the threads of the engine; for SECONDS from a random seed, new inputs being kept in build/fuzz/corpus for the next. Findings are
in build/fuzz/findings: replay one with build/fuzz/bin/fuzz_NAME FILE. The last line is "N passed, N failed": of each
fuzzer its replay, and its search.
END
}

# Each fuzzer with the longest input it makes, and its runs where no time is given: some seconds' worth.
fuzzers=(answers open damage import index items keys reflection request)
declare -A longest=([answers]=512 [open]=4096 [damage]=600 [import]=1024 [index]=256 [items]=512 [keys]=512 [reflection]=512 [request]=512)
declare -A runs=([answers]=200000 [open]=4000 [damage]=2000 [import]=100000 [index]=6000 [items]=200000 [keys]=200000 [reflection]=30000 [request]=200000)

# Without arguments: the run of CI.
seconds=
case ${1-} in
-h | --help)
  usage
  exit 0
  ;;
--build | '') ;;
*[!0-9]*)
  usage >&2
  exit 64
  ;;
*) seconds=$1 ;;
esac

build() {
  cmake -S "$root" -B "$tree" -G Ninja -DCMAKE_C_COMPILER=clang -DRDRIVE_FUZZ=ON -DCMAKE_BUILD_TYPE=RelWithDebInfo \
    >/dev/null
  cmake --build "$tree"
}

# Mutations depend on addresses, so these are the same each time, where that may be asked for.
alike=()
if setarch -R true 2>/dev/null; then alike=(setarch -R); fi

# fuzz NAME ARGUMENT...
fuzz() {
  local name=$1
  shift
  # What is freed is kept for a while, to tell who still uses it: less than by default, since all run at once.
  ASAN_OPTIONS=detect_leaks=1:quarantine_size_mb=64 UBSAN_OPTIONS=print_stacktrace=1 "${alike[@]}" "$tree/bin/fuzz_$name" \
    -timeout=30 -rss_limit_mb=2048 -artifact_prefix="$tree/findings/$name-" "$@" 2>&1
}

search() { # NAME
  local dictionary=$root/tests/fuzz/$1.dict
  local arguments=(-max_len="${longest[$1]}" -len_control=0) kept=$tree/corpus/$1 seeds=$tree/seeds/$1
  if [[ -n $seconds ]]; then
    arguments+=(-max_total_time="$seconds" "$kept" "$seeds")
  else
    # What goes by the clock is off: entropic weighs inputs by their time, and what was found is read again each second.
    find "$seeds" -type f | LC_ALL=C sort | paste -sd, >"$seeds.list"
    arguments+=(-runs="${runs[$1]}" -seed=1 -entropic=0 -reload=0 -seed_inputs="@$seeds.list" "$tree/new/$1")
  fi
  [[ ! -e $dictionary ]] || arguments+=(-dict="$dictionary")
  fuzz "$1" "${arguments[@]}" -print_final_stats=1
}

passed=0 failed=0
judge() { # WHAT STATUS LOG
  if (($2 == 0)); then
    passed=$((passed + 1))
    echo "fuzz $1: ok"
  else
    failed=$((failed + 1))
    tail -n 60 "$3"
    echo "fuzz $1: FAILED"
  fi
}

build
[[ ${1-} != --build ]] || exit 0

rm -rf "$tree/seeds" "$tree/new"
mkdir -p "$tree/findings"
for name in "${fuzzers[@]}"; do
  mkdir -p "$tree/corpus/$name" "$tree/new/$name" "$tree/seeds/$name"
  find "$root/tests/fuzz/corpus/$name" -type f -exec cp -t "$tree/seeds/$name" {} +
done
find "$root/tests/fixtures" \( -name '*.srd' -o -name '*.bin' \) -size -"${longest[open]}"c \
  -exec cp -t "$tree/seeds/open" {} +

for name in "${fuzzers[@]}"; do
  status=0
  fuzz "$name" -runs=0 "$tree/seeds/$name" >"$tree/$name-replay.log" || status=$?
  judge "$name replay" "$status" "$tree/$name-replay.log"
done

declare -A pids=()
for name in "${fuzzers[@]}"; do
  search "$name" >"$tree/$name-search.log" &
  pids[$name]=$!
done
for name in "${fuzzers[@]}"; do
  status=0
  wait "${pids[$name]}" || status=$?
  judge "$name search" "$status" "$tree/$name-search.log"
  grep -E 'DONE|stat::average_exec_per_sec' "$tree/$name-search.log" || true
done

echo "$passed passed, $failed failed"
((failed == 0))
