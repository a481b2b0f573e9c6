#!/usr/bin/env bash
# The gates of the contract, by buf: see usage() below.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
buf_version=1.75.0
buf=build/npm/node_modules/.bin/buf
frozen=proto/frozen/rdrive.v1.txtpb

usage() {
  cat <<END
usage: tests/contract.sh [--freeze]

Checks that proto/ is clean by buf's lint rules; that rdrive.v1 breaks nothing which $frozen promises;
that all of it stands there; and that such a breach would be found. The last line is "contract: N passed, N failed".
--freeze writes the frozen image anew, after an addition; never when something it promises would break.
buf $buf_version is installed by npm, into build/npm; without npm nothing is checked, which fails where CI=true.
END
}

buf_install() {
  [[ $("$buf" --version 2>/dev/null || true) != "$buf_version" ]] || return 0
  npm install --prefix build/npm --no-save --no-audit --no-fund --loglevel=error "@bufbuild/buf@$buf_version"
}

# Without the comments, which promise nothing. Text, so that a review sees what is added.
image() { # FILE
  "$buf" build proto --path proto/rdrive/v1 --exclude-source-info -o "$1"
}

breaking() { # [FOLDER]
  "$buf" breaking "${1:-proto}" --against "$frozen"
}

complete() {
  image "$scratch/now.txtpb"
  cmp -s "$scratch/now.txtpb" "$frozen" || {
    echo "proto/rdrive/v1 holds what $frozen does not: if it is an addition, tests/contract.sh --freeze"
    return 1
  }
}

# edited FILE SED: a copy of proto/ with that edit, at $scratch/proto.
edited() {
  rm -rf "$scratch/proto"
  cp -r proto "$scratch/proto"
  sed -E -i "$2" "$scratch/proto/$1"
  ! cmp -s "proto/$1" "$scratch/proto/$1" || {
    echo "the edit $2 finds nothing in $1"
    return 1
  }
}

# Status 100 is a breach; others say that the edited files don't compile.
refused() { # WHAT FILE SED
  local status=0
  edited "$2" "$3" || return 1
  breaking "$scratch/proto" >"$scratch/said" || status=$?
  ((status == 100)) || {
    echo "$1: buf ends with status $status, not 100"
    return 1
  }
}

allowed() { # WHAT FILE SED
  edited "$2" "$3" || return 1
  breaking "$scratch/proto" || {
    echo "$1: refused"
    return 1
  }
}

bites() {
  breaking >/dev/null || {
    echo 'not tried: what is there breaks the contract already'
    return 1
  }
  local entry=rdrive/v1/entry.proto reader=rdrive/v1/reader.proto writer=rdrive/v1/writer.proto status=0
  refused 'a field renumbered' $entry 's/(uint64 prev_offset) = 2;/\1 = 5;/' || status=1
  refused 'a field renamed' $entry 's/uint64 payload_offset = 2;/uint64 offset = 2;/' || status=1
  refused 'a field removed' $entry '/bool tombstone = 4;/d' || status=1
  refused 'a field of another type' $reader 's/fixed64 key_hash = 1;/uint64 key_hash = 1;/' || status=1
  refused 'a field no longer repeated' $reader 's/repeated (fixed64 key_hashes)/\1/' || status=1
  refused 'a oneof renamed' $entry 's/oneof outcome/oneof result/' || status=1
  refused 'a message removed' $writer '/^message WriteItem /,/^}/d; s/repeated WriteItem /repeated HashedWriteItem /' ||
    status=1
  refused 'a call removed' $reader '/rpc Len\(/d' || status=1
  refused 'a call renamed' $writer 's/rpc Compact\(/rpc Shrink(/' || status=1
  refused 'a call that streams no longer' $reader 's/returns \(stream ReadStreamResponse\)/returns (ReadStreamResponse)/' ||
    status=1
  refused 'another Go package' $entry 's/^(option go_package = "rdrive)/\1x/' || status=1
  refused 'another Java package' $entry 's/^(option java_package = "rdrive)/\1x/' || status=1
  allowed 'a field added' $entry 's/(bool tombstone = 4;)/\1 uint64 added_field = 999;/' || status=1
  allowed 'an outcome added' $entry 's/(Absent absent = 5;)/\1 bool added_outcome = 999;/' || status=1
  allowed 'a call added' $reader 's/(rpc Len\(LenRequest\) returns \(LenResponse\);)/\1 rpc AddedCall(LenRequest) returns (LenResponse);/' ||
    status=1
  allowed 'a message added' $writer 's/^(message CompactRequest \{\})/\1 message AddedMessage {}/' || status=1
  return "$status"
}

case ${1-} in
-h | --help)
  usage
  exit 0
  ;;
--freeze | '') ;;
*)
  usage >&2
  exit 64
  ;;
esac

if ! command -v npm >/dev/null; then
  if [[ ${CI-} == true ]]; then
    echo 'contract: FAILED: buf is installed by npm, and there is no npm'
    echo 'contract: 0 passed, 1 failed'
    exit 1
  fi
  echo 'contract: skipped: buf is installed by npm, and there is no npm'
  exit 0
fi
buf_install

if [[ ${1-} == --freeze ]]; then
  [[ ! -e $frozen ]] || breaking
  image "$frozen"
  exit 0
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
passed=0 failed=0
gate() { # NAME COMMAND...
  local name=$1
  shift
  if "$@"; then
    echo "contract $name: ok"
    passed=$((passed + 1))
  else
    echo "contract $name: FAILED"
    failed=$((failed + 1))
  fi
}
gate lint "$buf" lint proto
gate breaking breaking
gate complete complete
gate 'a breach is found' bites
echo "contract: $passed passed, $failed failed"
((failed == 0))
