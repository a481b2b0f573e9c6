#!/usr/bin/env bash
# The crash campaigns at length, with the programs that CI runs: at least a thousand kills and a thousand power cuts.
# usage: tests/crash/nightly.sh [BUILD-FOLDER [ROUNDS [SEED]]]    (build/test, 1000, one of the clock)
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
bin=${1:-build/test}/bin rounds=${2:-1000} seed=${3:-$(date +%s)}

cmake --build "${1:-build/test}" --target crash_kill crash_power crash_cut crash_calls
echo "seed $seed, $rounds rounds"
status=0
for campaign in "kill --rounds $rounds" "power --rounds $rounds" "cut" "calls --rounds $(((rounds + 499) / 500))"; do
  read -ra words <<<"$campaign"
  SECONDS=0
  "$bin/crash_${words[0]}" --seed "$seed" "${words[@]:1}" || status=1
  echo "  $SECONDS s"
done
exit "$status"
