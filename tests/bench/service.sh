#!/usr/bin/env bash
# The service beside bare gRPC servers, Redis and memcached: see service/driver.py --help, and README.md.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
tree=$root/build/bench

need() { # PROGRAM PACKAGE...: by turns
  local -a missing=()
  while (($#)); do
    command -v "$1" >/dev/null || missing+=("$2")
    shift 2
  done
  ((${#missing[@]} == 0)) || {
    echo "missing; as root: apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 2
  }
}

case " $* " in
*" --help "* | *" -h "*) ;;
*" --callgrind "*) need python3 python3 valgrind valgrind ;;
*) need python3 python3 taskset util-linux redis-server redis-server memcached memcached ;;
esac
cmake -S "$root" -B "$tree" -G Ninja -DBUILD_TESTING=ON -DCMAKE_BUILD_TYPE=Release >/dev/null
cmake --build "$tree" --target rdrived bench_service >&2
# The daemon as it would be if it copied every payload, or none.
if [[ " $* " == *" --sweep "* ]]; then
  for way in copied:1073741824 referred:1; do
    cmake -S "$root" -B "$tree-${way%:*}" -G Ninja -DBUILD_TESTING=OFF -DCMAKE_BUILD_TYPE=Release \
      -DCMAKE_C_FLAGS="-DENCODE_REFER_MIN=${way#*:}" >/dev/null
    cmake --build "$tree-${way%:*}" --target rdrived >&2
  done
fi
exec python3 "$root/tests/bench/service/driver.py" --tree "$tree" "$@"
