#!/usr/bin/env bash
# The engine beside the Rust crate and beside bare loops, in one table: see usage() below.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
tree=$root/build/bench

usage() {
  cat <<'END'
usage: tests/bench/engine.sh [OPTION...]

Builds build/bench (Release) and, where there is cargo, the Rust crate's side (tests/bench/reference, into
build/bench/cargo), then runs everything by turns and prints one table. Options go to bench_engine:

END
  "$tree/bin/bench_engine" --help | sed -n '/^  --rounds/,$p'
}

build() {
  cmake -S "$root" -B "$tree" -G Ninja -DBUILD_TESTING=ON -DCMAKE_BUILD_TYPE=Release >/dev/null
  cmake --build "$tree" --target bench_engine >&2
}

# The crate's side, or why it isn't there.
peer=()
build_peer() {
  if ! command -v cargo >/dev/null; then
    peer=(--no-peer 'not shown: there is no cargo')
  elif CARGO_TARGET_DIR=$tree/cargo cargo build --quiet --release --locked \
    --manifest-path "$root/tests/bench/reference/Cargo.toml" >&2; then
    peer=(--peer "$tree/cargo/release/engine-reference")
  else
    peer=(--no-peer 'not shown: cargo could not build tests/bench/reference')
  fi
}

build
if [[ ${1-} == --help || ${1-} == -h ]]; then
  usage
  exit 0
fi
build_peer
exec "$tree/bin/bench_engine" "${peer[@]}" "$@"
