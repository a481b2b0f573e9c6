#!/usr/bin/env bash
# grpcurl against a real daemon: see usage() below.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
here=tests/clients/grpcurl out=build/clients/grpcurl
tree=$(realpath "${RDRIVE_TREE:-build/test}")

usage() {
  cat <<END
usage: tests/clients/grpcurl.sh

Builds grpcurl by Go, in the version that $here/go.mod names, into $out; then lets it list, describe and
call all that rdrived offers, by reflection alone: it is given no .proto file. The programs are those of $tree
(RDRIVE_TREE names another build). The last line is "grpcurl: ok" or "grpcurl: FAILED".
Without Go it is skipped; where CI=true it fails.
END
}

case ${1-} in
-h | --help)
  usage
  exit 0
  ;;
'') ;;
*)
  usage >&2
  exit 64
  ;;
esac

if ! command -v go >/dev/null; then
  if [[ ${CI-} == true ]]; then
    echo 'grpcurl: FAILED: there is no Go to build it'
    exit 1
  fi
  echo 'grpcurl: skipped: there is no Go to build it'
  exit 0
fi
[[ -x $tree/bin/rdrived && -e $tree/tests/e2e/stubs/made ]] || {
  echo "$tree is not built: tests/run.sh --only test, or RDRIVE_TREE=FOLDER" >&2
  exit 1
}

mkdir -p "$out"
status=0
go -C "$here" build -o "$PWD/$out/" tool || status=1
if ((status == 0)); then
  # Debian's interpreter has the grpc that the daemon's tests use.
  RDRIVE_GRPCURL=$PWD/$out/grpcurl RDRIVE_BIN=$tree/bin RDRIVE_STUBS=$tree/tests/e2e/stubs RDRIVE_SANITIZE='' \
    /usr/bin/python3 -B "$here/test_grpcurl.py" -v || status=1
fi
if ((status)); then
  echo 'grpcurl: FAILED'
else
  echo 'grpcurl: ok'
fi
exit "$status"
