#!/usr/bin/env bash
# The gates: what holds for every source file. Needs build/test, built (tests/run.sh sees to it): the analysers read
# its compile commands and generated headers.
# usage: tests/check.sh [format|shell|includes|cppcheck|tidy]...
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
tree=build/test

sources() { # SUFFIXES FOLDER...: our files, never generated ones
  local suffixes=$1
  shift
  find "$@" -regextype posix-extended -regex ".*\.($suffixes)" | sort
}

# Dependencies point one way: the engine knows no gRPC, no protobuf, no HTTP, and nothing of the service.
includes() {
  local found=0 file line name
  while IFS=: read -r file line name; do
    name=${name##*[<\"]}
    case $name in
    grpc/* | protobuf-c/* | *.pb-c.h | microhttpd.h | *service/*) ;;
    *)
      # A header that only service/ has, by whatever path it is named.
      [[ -n $(find service -name "${name##*/}") && -z $(find store -name "${name##*/}") ]] || continue
      ;;
    esac
    echo "$file:$line: the engine may not include $name"
    found=1
  done < <(grep -rnoE --include='*.[ch]' '^[[:space:]]*#[[:space:]]*include[[:space:]]*[<"][^>"]+' store)
  return "$found"
}

gate() {
  case $1 in
  cppcheck | tidy)
    [[ -e $tree/compile_commands.json ]] || {
      echo "$tree is not there yet: tests/run.sh --only test"
      return 1
    }
    ;;&
  format) sources 'c|h' proto service store tests | xargs -r clang-format --dry-run -Werror ;;
  shell) { sources sh deploy tests && echo .ci/run; } | xargs shellcheck -x ;;
  includes) includes ;;
  # The analysers leave the tests out: cmocka's assertions do not tell them that they end a test. Tests run under the
  # sanitizers anyway.
  cppcheck)
    # Not uninitvar and its like: it takes a local's address for its use. The compiler and clang-tidy see to that.
    # It does not know __VA_OPT__(, ), and doesn't miss the comma.
    cppcheck --quiet --project="$tree/compile_commands.json" -ibuild -itests '-D__VA_OPT__(x,y)=' -j "$(nproc)" \
      --enable=warning,performance,portability --inline-suppr --error-exitcode=1 \
      --suppress=uninitvar --suppress=legacyUninitvar --suppress=ctuuninitvar \
      --suppress='*:*/build/*' --suppress='*:/usr/*'
    ;;
  tidy)
    # Not the check that wants memcpy_s and its like, which glibc does not have.
    sources c service store | xargs -r -n 1 -P "$(nproc)" clang-tidy -p "$tree" --quiet --warnings-as-errors='*' \
      --checks=-clang-analyzer-security.insecureAPI.DeprecatedOrUnsafeBufferHandling
    ;;
  *)
    echo "there is no gate $1"
    return 1
    ;;
  esac
}

status=0
(($#)) || set -- format shell includes cppcheck tidy
for name; do
  if gate "$name"; then
    echo "gate $name: ok"
  else
    echo "gate $name: FAILED"
    status=1
  fi
done
exit "$status"
