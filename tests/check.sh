#!/usr/bin/env bash
# The gates: what holds for every source file. Needs build/test, built (tests/run.sh sees to it): the analysers read
# its compile commands and generated headers.
# usage: tests/check.sh [format|shell|includes|rules|cppcheck|tidy]...
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

rule_numbers() { # GREP ARGUMENTS...: those in what grep finds
  { grep -rhoE "$@" || true; } | grep -oE '[EFIR]-[0-9]{2}' | sort -u
}

# Rules are defined where their number is bold (**F-01**). Each is cited where it is kept and where that is tested, and
# none is cited that isn't there.
rules() {
  local found=0 rule number='\b[EFIR]-[0-9]{2}' defined code test
  local -a anywhere=(--include='*.'{c,h,py,sh,md,proto,json,txt} -- *.md deploy proto service store tests)
  defined=$(rule_numbers '\*\*[EFIR]-[0-9]{2}\*\*' store/FORMAT.md store/RECOVERY.md store/ERRATA.md)
  code=$(rule_numbers "$number" --include='*.[ch]' service store)
  test=$(rule_numbers "$number" --include='*.'{c,py} tests)
  for rule in $(comm -23 <(echo "$defined") <(echo "$code")); do
    echo "$rule: nothing in service/ or store/ cites it"
    found=1
  done
  for rule in $(comm -23 <(echo "$defined") <(echo "$test")); do
    echo "$rule: no test cites it"
    found=1
  done
  for rule in $(comm -13 <(echo "$defined") <(rule_numbers "$number" "${anywhere[@]}")); do
    echo "$rule: neither FORMAT.md nor RECOVERY.md nor ERRATA.md defines it; cited in:"
    grep -rnoE "\\b$rule" "${anywhere[@]}"
    found=1
  done
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
  rules) rules ;;
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
(($#)) || set -- format shell includes rules cppcheck tidy
for name; do
  if gate "$name"; then
    echo "gate $name: ok"
  else
    echo "gate $name: FAILED"
    status=1
  fi
done
exit "$status"
